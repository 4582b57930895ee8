"""Hooks of MkDocs: convert formulas to MathML and add pages from outside docs/.

Formulas are written as GitHub shows them: a block of the language `math`, or between dollars and backticks in a line.
MathML needs no script.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
OUTSIDE = {"Changes": "CHANGELOG.md", "Contributing": "CONTRIBUTING.md", "Security": "SECURITY.md"}

_BLOCK = re.compile(r"^```math\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"\$`([^`\n]+)`\$")


def on_config(config: Any) -> Any:
    """Add the pages next to the README to the navigation."""
    about = next(section["About"] for section in config.nav if "About" in section)
    about += [{title: _name_outside(name)} for title, name in OUTSIDE.items() if (ROOT / name).exists()]
    return config


def on_files(files: Files, *, config: Any) -> Files:
    """Add the pages next to the README, and the path of what is built after the pages."""
    for name in OUTSIDE.values():
        if (ROOT / name).exists():
            text = (ROOT / name).read_text(encoding="utf-8").replace("](docs/", "](")
            files.append(File.generated(config, _name_outside(name), content=text))
    files.append(File.generated(config, "viz/index.html", content="`make docs` puts Kedro-Viz here."))
    return files


def _name_outside(name: str) -> str:
    return name.lower()


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace formulas by MathML."""
    blocks = _BLOCK.sub(lambda match: f'<div class="formula">{_to_mathml(match.group(1), "block")}</div>', markdown)
    return _INLINE.sub(lambda match: f"<span>{_to_mathml(match.group(1), 'inline')}</span>", blocks)


def _to_mathml(formula: str, display: str) -> str:
    return convert(" ".join(formula.split()), display=display)
