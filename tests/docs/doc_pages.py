"""The pages of the documentation, taken apart: code blocks, commands, links."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), *ROOT.glob("*.md")])
_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    language: str
    text: str


def name_page(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def find_blocks(page: Path, language: str) -> list[Block]:
    found = _FENCE.findall(page.read_text(encoding="utf-8"))
    return [Block(kind, text) for _, kind, text in found if kind == language]


def without_blocks(page: Path) -> str:
    """The prose: no fenced and no indented code."""
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    return "\n".join(line for line in text.splitlines() if not line.startswith("    "))


def find_commands(page: Path) -> list[str]:
    """Shell commands of a page, one line each: of bash blocks, indented blocks, and `kedro ...` within the text."""
    text = page.read_text(encoding="utf-8")
    shown = [block.text for block in find_blocks(page, "bash")]
    shown += [textwrap.dedent(part) for part in re.findall(r"(?<=\n\n)(?: {4}.*\n)+", _FENCE.sub("", text))]
    inline = re.findall(r"`((?:kedro|vmnet-pipeline|make|python [\w/]+\.py)(?: [^`]*)?)`", without_blocks(page))
    shown += [re.split(r" \\?\|", command)[0] for command in inline]  # `kedro weights list | fetch` names alternatives
    return [line for part in shown for line in _join_lines(part) if line]


def _join_lines(text: str) -> list[str]:
    """One line per command, without continuations, comments, and assignments before it."""
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    bare = [re.sub(r"(^|\s)#.*$", "", line).strip() for line in lines]
    parts = [part.strip() for line in bare for part in re.split(r"&&|;|\|\|?|(?<!>)&(?!\d)", _hide_quoted(line))]
    parts = [re.sub(r"^do\b\s*", "", part) for part in parts]
    return [re.sub(r"^(?:[A-Z_]+=(?:\"[^\"]*\"|\S*)(?:\s+|$))+", "", _show_quoted(part)) for part in parts]


def _hide_quoted(line: str) -> str:
    """`;`, `|` and `&` within quotes do not end a command."""
    return re.sub(r"'[^']*'|\"[^\"]*\"", lambda m: m.group().translate({59: 0xE000, 124: 0xE001, 38: 0xE002}), line)


def _show_quoted(part: str) -> str:
    return part.translate({0xE000: 59, 0xE001: 124, 0xE002: 38})
