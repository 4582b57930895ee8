"""Names of all parameters with a dot, to recognise one that nothing reads, and to propose the one that was meant."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, get_args, get_origin

from pydantic import BaseModel

from vmnet_pipeline.params.evaluation import EvaluateParams
from vmnet_pipeline.params.experiments import CompareParams, TuneParams
from vmnet_pipeline.params.extraction import ExtractParams
from vmnet_pipeline.params.ingestion import IngestParams, SplitParams
from vmnet_pipeline.params.pieces import PassageParams, PieceParams
from vmnet_pipeline.params.search import EmbedParams, IndexParams
from vmnet_pipeline.params.training import TrainParams

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pydantic.fields import FieldInfo

SECTIONS: dict[str, type[BaseModel]] = {
    "ingest": IngestParams,
    "extract": ExtractParams,
    "split": SplitParams,
    "train": TrainParams,
    "evaluate": EvaluateParams,
    "embed": EmbedParams,
    "index": IndexParams,
    "pieces": PieceParams,
    "passages": PassageParams,
    "compare": CompareParams,
    "tune": TuneParams,
}
"""Model of each top-level key of the parameters that has one."""

_MAX_PROPOSED = 3


def find_nested(field: FieldInfo) -> type[BaseModel] | None:
    """The model of a parameter that is a group of parameters."""
    kinds = (field.annotation, *get_args(field.annotation))
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)


def list_names(section: str, model: type[BaseModel]) -> set[str]:
    """Names of a section, its groups included; one that ends with a dot takes any further parts."""
    names = {section}
    for name, field in model.model_fields.items():
        full, nested = f"{section}.{name}", find_nested(field)
        kinds = (field.annotation, *get_args(field.annotation))
        if any(get_origin(kind) is dict or kind is dict for kind in kinds):
            names |= {full, f"{full}."}
        else:
            names |= {full} if nested is None else list_names(full, nested)
    return names


def list_unknown(given: Iterable[str], sections: Mapping[str, type[BaseModel]]) -> list[str]:
    """Flat names that belong to a section and are none of its parameters, in order."""
    unknown = []
    for name in sorted(given):
        section = name.partition(".")[0]
        if "." not in name or section not in sections:
            continue
        known = list_names(section, sections[section])
        if name not in known and not any(part.endswith(".") and name.startswith(part) for part in known):
            unknown.append(name)
    return unknown


def propose_names(name: str, known: Iterable[str]) -> str:
    """A hint at the names that may be meant: those that end alike, else the nearest.

    Example:
        >>> propose_names("epochs", ["train.epochs", "train.loss.name"])
        'did you mean train.epochs?'
        >>> propose_names("train.epoch", ["train.epochs", "train.loss.name"])
        'did you mean train.epochs?'
    """
    section, _, last = name.rpartition(".")
    names = sorted(name for name in known if not name.endswith("."))
    own = [known for known in names if section and known.startswith(f"{section}.")]
    found = (
        [known for known in names if known.rpartition(".")[2] == last]
        or _find_near(last, own, 0.6)
        or ([] if section else get_close_matches(name, names, 1, 0.7))
        or _find_near(last, names, 0.8)
    )
    return f"did you mean {' or '.join(found[:_MAX_PROPOSED])}?" if found else "docs/parameters.md lists all."


def _find_near(last: str, names: Iterable[str], cutoff: float) -> list[str]:
    """Names whose last part is the nearest to `last`."""
    parts = {name: name.rpartition(".")[2] for name in names}
    near = get_close_matches(last, {*parts.values()}, 1, cutoff)
    return [name for name, part in parts.items() if part in near]
