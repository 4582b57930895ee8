"""Write docs/parameters.md from the parameter models: `python docs/make_parameters.py`."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from vmnet_pipeline import params
from vmnet_pipeline.backends.registry import BACKENDS
from vmnet_pipeline.serving.settings import ServeParams

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

TARGET = Path(__file__).with_name("parameters.md")

SECTIONS: dict[str, type[BaseModel]] = {
    "ingest": params.IngestParams,
    "extract": params.ExtractParams,
    "split": params.SplitParams,
    "train": params.TrainParams,
    "evaluate": params.EvaluateParams,
    "embed": params.EmbedParams,
    "index": params.IndexParams,
    "serve": ServeParams,
    "compare": params.CompareParams,
    "tune": params.TuneParams,
}

HEAD = """# Parameters

Written by `python docs/make_parameters.py` from the models that check them. Give them with `--params`, for example
`--params train.epochs=50,musicnn.layer=taggram`, or in `conf/local/parameters.yml`. An unknown name is an error.
"""


def find_backend_models() -> dict[str, type[BaseModel]]:
    """Parameter model of every backend, found through its constructor's `params`."""
    models: dict[str, type[BaseModel]] = {}
    for name, place in BACKENDS.items():
        module = import_module(place.partition(":")[0])
        own = [
            item
            for item in vars(module).values()
            if isinstance(item, type) and issubclass(item, BaseModel) and item.__module__ == module.__name__
        ]
        models[name] = own[-1]
    return models


def find_nested(field: FieldInfo) -> type[BaseModel] | None:
    """The model of a parameter that is a group of parameters."""
    kinds = (field.annotation, *get_args(field.annotation))
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)


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


def write_rows(prefix: str, model: type[BaseModel]) -> list[str]:
    """Table rows of a model, groups of parameters included."""
    rows = []
    for name, field in model.model_fields.items():
        nested = find_nested(field)
        if nested is not None:
            many = ".NAME" if get_origin(field.annotation) is dict else ""
            rows += write_rows(f"{prefix}.{name}{many}", nested)
            continue
        default = "set in conf" if field.default is PydanticUndefined else f"`{field.default}`"
        text = (field.description or "").replace("|", "\\|")
        rows.append(f"| `{prefix}.{name}` | {name_kind(field.annotation)} | {default} | {text} |")
    return rows


def make_page() -> str:
    """The whole page."""
    parts = [HEAD]
    for name, model in {**SECTIONS, **find_backend_models()}.items():
        first = (model.__doc__ or "").strip().splitlines()[0]
        head = ["| name | kind | default | meaning |", "|---|---|---|---|"]
        parts.append("\n".join([f"## {name}", "", first, "", *head, *write_rows(name, model), ""]))
    return "\n".join(parts)


if __name__ == "__main__":
    TARGET.write_text(make_page(), encoding="utf-8")
