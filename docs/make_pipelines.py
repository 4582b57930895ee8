"""Write docs/pipelines.md and its drawings from the registered pipelines: `python docs/make_pipelines.py`."""

from __future__ import annotations

import inspect
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parent))

from draw_graph import Box, draw_graph

from vmnet_pipeline.backends.registry import BACKENDS
from vmnet_pipeline.params import DEFAULT_VARIANT, VARIANTS
from vmnet_pipeline.pipeline_registry import (
    register_pipelines,
    register_reference_pipelines,
)

if TYPE_CHECKING:
    from kedro.pipeline import Pipeline
    from kedro.pipeline.node import Node

DOCS = Path(__file__).parent
TARGET = DOCS / "pipelines.md"
IMAGES = "images"

# Registered name to its module; the others are the same for another backend or variant.
SHOWN = {
    "ingest": "ingest",
    "extract_musicnn": "extract",
    "split": "split",
    "train": "train",
    "evaluate": "evaluate",
    "embed": "embed",
    "index": "index",
    "compare": "compare",
    "tune": "tune",
}

HEAD = """# Pipelines

Written by `python docs/make_pipelines.py` from the registered pipelines. Blue boxes are steps, rounded ones datasets; the tables list
parameters. [Datasets](datasets.md) describes each dataset and its path. `kedro viz` shows the same, with previews.

`kedro run` runs everything for the default variant, `{variant}`:

[![All steps of kedro run](images/pipeline-default.svg)](images/pipeline-default.svg)

{aliases}
"""


def name_aliases() -> str:
    """Registered names without a section."""
    extractions = ", ".join(f"`extract_{backend}`" for backend in BACKENDS)
    variants = ", ".join(f"`{variant}`" for variant in VARIANTS)
    return (
        f"`extract` is the extraction of both sides. {extractions} are the same pipeline, one per backend, also those of other packages. {variants} are the whole chain of one variant, "
        "`embed_VARIANT` and `index_VARIANT` two of its steps; `--params music=BACKEND,video=BACKEND` adds those of a pair, "
        "`BACKEND-BACKEND`. With your own feature files (`pairs_dir`) there are "
        "`train`, `evaluate`, `embed`, `index`, `compare` and `tune`; `kedro run` runs the first two."
    )


def draw_pipeline(pipeline: Pipeline) -> str:
    """The SVG of a pipeline, without its parameters."""
    boxes: dict[str, Box] = {}
    edges: list[tuple[str, str]] = []
    for step in pipeline.nodes:
        data_in = dict.fromkeys(name for name in step.inputs if not _is_parameter(name))
        boxes.update({name: Box(name) for name in data_in if name not in boxes})
        boxes[step.name] = Box(step.name, is_step=True)
        boxes.update({name: Box(name) for name in step.outputs if name not in boxes})
        edges += [(name, step.name) for name in data_in] + [(step.name, name) for name in step.outputs]
    return draw_graph(list(boxes.values()), edges)


def show_drawing(title: str, file: str) -> str:
    """Image that links to itself in full size."""
    return f"[![{title}]({IMAGES}/{file})]({IMAGES}/{file})"


def describe_steps(pipeline: Pipeline) -> list[str]:
    """The lines of a table with all steps of a pipeline."""
    head = ["| step | what it does | parameters | tags |", "|---|---|---|---|"]
    return [*head, *(describe_step(step) for step in pipeline.nodes)]


def describe_step(step: Node) -> str:
    """A row of a table: step, what it does, parameters it reads."""
    text = inspect.getdoc(step.func) or ""
    first = " ".join(text.split("\n\n")[0].split())
    parameters = ", ".join(f"`{name.removeprefix('params:')}`" for name in step.inputs if _is_parameter(name))
    tags = ", ".join(f"`{tag}`" for tag in sorted(step.tags))
    return f"| `{step.name}` | {first} | {parameters} | {tags} |"


def describe_pipeline(name: str, module: str, pipeline: Pipeline) -> str:
    """The section of a pipeline."""
    doc = inspect.getdoc(import_module(f"vmnet_pipeline.pipelines.{module}.pipeline")) or ""
    first = " ".join(doc.split("\n\n")[0].split())
    drawing = show_drawing(f"The pipeline {name}", f"pipeline-{name}.svg")
    return "\n".join([f"## {name}", "", first, "", drawing, "", *describe_steps(pipeline), ""])


def describe_reference() -> str:
    """Section of the pipelines on the user's own feature files."""
    pipeline = register_reference_pipelines("vmnet_musicnn")["__default__"]
    return "\n".join(
        [
            "## With your own feature files",
            "",
            "`kedro run --params pairs_dir=DIR` needs no media; see [the original code's layout](reference-layout.md).",
            "",
            show_drawing("The pipeline on feature files", "pipeline-pairs.svg"),
            "",
            *describe_steps(pipeline),
            "",
        ]
    )


def make_drawings() -> dict[str, str]:
    """File name to SVG."""
    pipelines = register_pipelines()
    drawings = {f"pipeline-{name}.svg": draw_pipeline(pipelines[name]) for name in SHOWN}
    drawings["pipeline-default.svg"] = draw_pipeline(pipelines["__default__"])
    drawings["pipeline-pairs.svg"] = draw_pipeline(register_reference_pipelines("vmnet_musicnn")["__default__"])
    return drawings


def make_page() -> str:
    """The whole page."""
    pipelines = register_pipelines()
    sections = [describe_pipeline(name, module, pipelines[name]) for name, module in SHOWN.items()]
    return "\n".join([HEAD.format(variant=DEFAULT_VARIANT, aliases=name_aliases()), *sections, describe_reference()])


def _is_parameter(name: str) -> bool:
    return name == "parameters" or name.startswith("params:")


if __name__ == "__main__":
    (DOCS / IMAGES).mkdir(exist_ok=True)
    for file_name, drawing in make_drawings().items():
        (DOCS / IMAGES / file_name).write_text(drawing, encoding="utf-8")
    TARGET.write_text(make_page(), encoding="utf-8")
