"""Write docs/datasets.md from the catalog and the dataset classes: `python docs/make_datasets.py`."""

from __future__ import annotations

import inspect
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import yaml

from vmnet_pipeline import datasets
from vmnet_pipeline.params import DEFAULT_VARIANT
from vmnet_pipeline.pipeline_registry import register_pipelines, register_reference_pipelines

DOCS = Path(__file__).parent
TARGET = DOCS / "datasets.md"
CATALOG = DOCS.parent / "conf" / "base" / "catalog"

# Values of the variables of `catalog/locations.yml` and others, as shown to a reader.
PLACES = {
    "_media": "MEDIA",
    "_intermediate": "data/02_intermediate/COLLECTION",
    "_feature": "data/04_feature/COLLECTION",
    "_model_input": "data/05_model_input/COLLECTION",
    "_variant_models": "data/06_models/COLLECTION",
    "_checkpoint": "data/06_models/COLLECTION/{variant}/checkpoint",
    "_variant_output": "data/07_model_output/COLLECTION",
    "_reporting": "data/08_reporting/COLLECTION",
    "_variant_reporting": "data/08_reporting/COLLECTION",
}

HEAD = """# Datasets

Written by `python docs/make_datasets.py` from `conf/base/catalog/` and the dataset classes. COLLECTION is named after the media folder, or by
`collection=NAME`; MEDIA is `media_dir`. `{backend}` is the name of a backend such as `musicnn`, `{variant}` that of a
variant such as `vmnet_musicnn`. `data_root` replaces `data`; `summaries_dir` replaces the folders of models, model output and reports.
An entry `stored_NAME` is the same data as the entry on its path: a step may not read its own output.

| dataset | kind | place | made by | read by |
|---|---|---|---|---|
"""


def read_catalog() -> dict[str, dict[str, Any]]:
    """All entries of the catalog, by name."""
    entries: dict[str, dict[str, Any]] = {}
    for path in sorted(CATALOG.glob("*.yml")):
        entries |= {name: entry for name, entry in yaml.safe_load(path.read_text()).items() if name[0] != "_"}
    return entries


def find_uses() -> tuple[dict[str, set[str]], dict[str, set[str]]]:
    """Name of each dataset, with placeholders, to the steps that make it and to those that read it."""
    made, read = defaultdict(set), defaultdict(set)
    pipelines = [*register_pipelines().values(), *register_reference_pipelines(DEFAULT_VARIANT).values()]
    for step in {step.name: step for pipeline in pipelines for step in pipeline.nodes}.values():
        name = step.name.rpartition(".")[2]
        for dataset in step.outputs:
            made[_generalise(dataset)].add(name)
        for dataset in step.inputs:
            read[_generalise(dataset)].add(name)
    return made, read


def _generalise(name: str) -> str:
    space, _, rest = name.rpartition(".")
    if not space:
        return name
    return "{variant}." + rest if space.startswith("vmnet_") else "{backend}." + rest


def show_place(entry: dict[str, Any]) -> str:
    """Path of an entry, as shown to a reader."""
    if "filepath" not in entry:
        return "memory" if entry["type"] == "MemoryDataset" else "`pairs_dir` and the like"
    text = str(entry["filepath"])
    if text.startswith("${local:"):
        text = text.split('"')[1]
    if text.startswith("${runtime_params:"):
        name, default = text.removeprefix("${runtime_params:")[:-1].split(", ", 1)
        return f"`{name}`, or `{_resolve(default.strip(chr(34)))}`"
    return f"`{_resolve(text)}`"


def _resolve(text: str) -> str:
    return re.sub(r"\$\{(_\w+)\}", lambda match: PLACES[match.group(1)], text)


def make_table() -> str:
    """A row per entry of the catalog, in the order of its files."""
    made, read = find_uses()
    rows = []
    for name, entry in read_catalog().items():
        kind = entry["type"].rpartition(".")[2]
        shown = f"[{kind}](#{kind.lower()})" if hasattr(datasets, kind) else f"`{kind}`"
        steps = [", ".join(f"`{step}`" for step in sorted(uses[name])) for uses in (made, read)]
        rows.append(f"| `{name}` | {shown} | {show_place(entry)} | {steps[0]} | {steps[1]} |")
    return "\n".join(rows)


def describe_class(name: str) -> str:
    """The section of a dataset class: its docstring, examples as code blocks."""
    parts = []
    for part in re.split(r"\n(?=Example)", inspect.getdoc(getattr(datasets, name)) or ""):
        if not part.startswith("Example"):
            parts.append(part.strip())
            continue
        title, _, code = part.partition("\n")
        language = "pycon" if "Python" in title else "yaml"
        parts.append(f"{title}\n\n```{language}\n{inspect.cleandoc(code)}\n```")
    return f"## {name}\n\n" + "\n\n".join(parts) + "\n"


def make_page() -> str:
    """The whole page."""
    return HEAD + make_table() + "\n\n" + "\n".join(describe_class(name) for name in sorted(datasets.__all__))


if __name__ == "__main__":
    TARGET.write_text(make_page(), encoding="utf-8")
