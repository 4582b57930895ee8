"""Write docs/parameters.md from the parameter models: `python docs/make_parameters.py`."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin

from pydantic_core import PydanticUndefined

from vmnet_pipeline import params
from vmnet_pipeline.backends.registry import BACKENDS
from vmnet_pipeline.params import names
from vmnet_pipeline.serving.config import ServeParams

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

TARGET = Path(__file__).with_name("parameters.md")
CONF = Path(__file__).parents[1] / "conf" / "base"

SECTIONS: dict[str, type[BaseModel]] = {
    **names.SECTIONS,
    "serve": ServeParams,
    "mix": params.MixParams,
    "variants.NAME": params.VariantParams,
}

HEAD = """# Parameters

Written by `python docs/make_parameters.py` from the models that check them. Give them with `--params`, for example
`--params train.epochs=50,musicnn.layer=taggram`, or in `conf/local/parameters.yml`. An unknown name is an error.

Names and paths are taken literally: `collection=007`, `collection=2024_01`, `media_dir=2024`, a path with a comma. All other values are
YAML. `split_dir=` without a value means none, like `null` in a file. (`kedro viz run` parses its own `--params` and converts such names to numbers.)
"""


FLAT_HEAD = """## Names without a dot

They set several parameters at once, or paths of the catalog.

| name | default | meaning |
|---|---|---|
"""

FLAT = {
    "audio_dir": ("", "extract from this bare folder of audio files; no ingest, no pairs"),
    "cache_dir": ("`data/cache`", "local copies and caches for object stores"),
    "checkpoint": ("that of the variant", "use this checkpoint instead of training one"),
    "collection": ("from the folder's name", "name of the collection, and of its sub-folders in `data/`"),
    "data_root": ("`data`", "root of all outputs; local or a URL"),
    "gpu_idx": ("", "CUDA device of the feature networks"),
    "library": (
        "",
        "folder with tracks alone or videos alone, to be indexed with an existing network; see "
        "[libraries](soundtrack.md#libraries)",
    ),
    "library_side": ("`auto`", "`ingest.library_side`: what is used of the files of a library"),
    "media_dir": ("`data/01_raw/demo`", "media folder or media.csv; local or a URL"),
    "metadata": (
        "the media.csv",
        "csv file with a column `id`; its other columns are available for search and filters",
    ),
    "music": (
        "those of `variant`",
        "backends of the audio, a name or `a+b`; with `video` a pair of its own, see [variants](features.md#variants)",
    ),
    "n_workers": ("", "number of runs that share an extraction, see `worker`"),
    "pairs_dir": ("", "your own feature files, see [their layout](reference-layout.md)"),
    "pool_size": ("", "`evaluate.pool_size`"),
    "save_dir": ("", "folder for the features of an extraction"),
    "seed": ("17", "`split.seed` and `train.seed`"),
    "shuffle_pairs": ("`False`", "`evaluate.shuffle_pairs`"),
    "split_dir": ("", "`split.split_dir`: folder with train.csv, test.csv and optionally val.csv"),
    "summaries_dir": ("", "one folder for checkpoint, event files, report and figures"),
    "test_csv_path": ("", "ids of the test items, instead of those of `pairs_dir`"),
    "test_data_dir": ("", "folder with audio/ and video/ of the test items"),
    "train_csv_path": ("", "ids of the training items"),
    "train_data_dir": ("", "folder with audio/ and video/ of the training items"),
    "variant": (
        "`vmnet_fused`",
        "variant that `kedro run`, `train`, `evaluate`, `embed`, `index` and others use; for `pairs_dir` "
        "`vmnet_musicnn` or `vmnet_vggish`, by default from the shapes",
    ),
    "video": ("those of `variant`", "backends of the frames, see `music`"),
    "video_dir": ("", "extract from this bare folder of video files"),
    "weights": ("`pretrained`", "`random`: feature networks with random weights, for tests"),
    "weights_dir": ("`data/06_models/weights`", "verified weight files"),
    "worker": (
        "",
        "number of this run among `n_workers`, from 0, see [array jobs](scaling.md#array-jobs-without-an-engine)",
    ),
}


def find_flat_names() -> list[str]:
    """Names without a dot that `--params` takes: those that the configuration reads."""
    texts = (path.read_text(encoding="utf-8") for path in sorted(CONF.rglob("*.yml")))
    return sorted({name for text in texts for name in re.findall(r"\$\{runtime_params:(\w+)", text)})


def describe_flat_names() -> str:
    """Section of names without a dot: all that the configuration reads."""
    if differing := {*FLAT} ^ {*find_flat_names()}:
        raise SystemExit(f"docs/make_parameters.py: add or remove {', '.join(sorted(differing))}")
    return FLAT_HEAD + "\n".join(f"| `{name}` | {default} | {text} |" for name, (default, text) in FLAT.items()) + "\n"


def find_backend_models() -> dict[str, type[BaseModel]]:
    """Parameter model of every backend."""
    places = {name: place.split(":") for name, place in BACKENDS.items()}
    return {name: getattr(import_module(module), kind).params_type for name, (module, kind) in places.items()}


def name_kind(annotation: Any) -> str:
    """A type as a reader of YAML would say it."""
    if annotation is NoneType:
        return "null"
    arguments, origin = get_args(annotation), get_origin(annotation)
    if origin is Annotated:
        return name_kind(arguments[0])
    if origin is dict:
        return "mapping"
    if origin is tuple and Ellipsis in arguments:
        return f"list of {name_kind(arguments[0])}"
    if arguments and not isinstance(arguments[0], type):
        return " or ".join(f"`{item}`" if isinstance(item, str) else name_kind(item) for item in arguments)
    if arguments:
        return " or ".join(dict.fromkeys(name_kind(item) for item in arguments if item is not Ellipsis))
    return getattr(annotation, "__name__", str(annotation)).replace("Path", "path").replace("str", "text")


def name_bounds(field: FieldInfo) -> str:
    """Bounds of a number, as they are written: ` >= 1`."""
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    found = [
        (sign, getattr(item, name)) for item in field.metadata for name, sign in signs.items() if hasattr(item, name)
    ]
    shown = ", ".join(f"{sign} {bound:g}" for sign, bound in found if bound < 2**53)
    return f" {shown}" if shown else ""


def write_rows(prefix: str, model: type[BaseModel]) -> list[str]:
    """Table rows of a model, groups of parameters included."""
    rows = []
    for name, field in model.model_fields.items():
        nested = names.find_nested(field)
        if nested is not None:
            many = ".NAME" if get_origin(field.annotation) is dict else ""
            rows += write_rows(f"{prefix}.{name}{many}", nested)
            continue
        default = "set in conf" if field.default is PydanticUndefined else f"`{field.default}`"
        text = (field.description or "").replace("|", "\\|")
        rows.append(f"| `{prefix}.{name}` | {name_kind(field.annotation)}{name_bounds(field)} | {default} | {text} |")
    return rows


def make_page() -> str:
    """The whole page."""
    parts = [HEAD, describe_flat_names()]
    shared: dict[type[BaseModel], list[str]] = {}
    for name, model in {**SECTIONS, **find_backend_models()}.items():
        shared.setdefault(model, []).append(name)
    for model, backends in shared.items():
        name = " / ".join(backends)
        first = (model.__doc__ or "").strip().splitlines()[0]
        head = ["| name | kind | default | meaning |", "|---|---|---|---|"]
        parts.append("\n".join([f"## {name}", "", first, "", *head, *write_rows(backends[0], model), ""]))
    return "\n".join(parts)


if __name__ == "__main__":
    TARGET.write_text(make_page(), encoding="utf-8")
