"""The variants of a project: those always there, those of its parameter `variants`, and a pair of `music`, `video`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from vmnet_pipeline.backends.registry import explain_unknown, find_class, list_backends
from vmnet_pipeline.errors import ParameterError, describe_validation
from vmnet_pipeline.params import DEFAULT_VARIANT, VARIANTS, VariantParams
from vmnet_pipeline.types import MODALITY_OF

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vmnet_pipeline.types import Side

STEPS = ("ingest", "extract", "split", "train", "evaluate", "embed", "index", "compare", "tune")
"""Pipelines of the default variant, so no names for a variant."""


def read_variants(parameters: Mapping[str, Any]) -> dict[str, VariantParams]:
    """All variants, the default one first.

    Args:
        parameters: All parameters of the project; `variant` names the default, `variants` adds some, `music` and
            `video` replace the backends of the default one.

    Raises:
        ParameterError: A variant or backend cannot be used, or there is no variant of that name.
    """
    given = parameters.get("variants") or {}
    if not isinstance(given, dict):
        raise ParameterError("variants: must map names to the backends of each side, music and video")
    variants = {**VARIANTS, **{str(name): _read_variant(str(name), content) for name, content in given.items()}}
    chosen = str(parameters.get("variant") or DEFAULT_VARIANT)
    sides: dict[str, Any] = {side: parameters[side] for side in MODALITY_OF if parameters.get(side)}
    if sides:
        chosen, pair = _read_pair(chosen, sides, variants)
        variants[chosen] = pair
    if chosen not in variants:
        raise ParameterError(
            f"variant: there is no variant {chosen!r}; choose one of {', '.join(variants)}, or define it under "
            "`variants` in conf/local/parameters.yml, or by music=BACKEND,video=BACKEND"
        )
    return {chosen: variants[chosen], **variants}


def _read_pair(
    chosen: str, sides: Mapping[str, Any], variants: Mapping[str, VariantParams]
) -> tuple[str, VariantParams]:
    """Name and backends of the pair that `music` and `video` give; a side that is left out is that of `chosen`.

    A pair that is a variant has its name, so that nothing is computed twice; any other is named after its backends, or
    by `variant` where no variant has that name yet.
    """
    base = variants.get(chosen)
    content = {**(base.model_dump() if base else {}), **sides}
    pair = _validate("", content)
    same = [name for name, other in variants.items() if other == pair]
    name = chosen if base is None else (same[0] if chosen not in same else chosen) if same else name_pair(pair)
    if not same:
        _check_name(name)
    _check_backends("", pair)
    return name, pair


def name_pair(variant: VariantParams) -> str:
    """Name of a pair without one: `clap-siglip2`, with several backends of a side `musicnn_vggish-clip`."""
    return "-".join("_".join(getattr(variant, side)) for side in MODALITY_OF)


def _read_variant(name: str, content: Any) -> VariantParams:
    _check_name(name)
    variant = _validate(f"variants.{name}.", content)
    _check_backends(f"variants.{name}.", variant)
    return variant


def _check_name(name: str) -> None:
    taken = name in STEPS or name in list_backends() or name.startswith(("extract_", "embed_", "index_", "__"))
    if taken or not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise ParameterError(
            f"variants: {name!r} is no name for a variant; use letters, digits, '-' and '_', and no name of a pipeline "
            "or backend"
        )


def _validate(place: str, content: Any) -> VariantParams:
    from pydantic import ValidationError

    try:
        variant = VariantParams.model_validate(content)
    except ValidationError as error:
        raise ParameterError(f"{place}{describe_validation(error, show_value=True)}") from error
    return VariantParams(**{side: _name_sides(side, getattr(variant, side)) for side in MODALITY_OF})


def _name_sides(side: Side, names: tuple[str, ...]) -> tuple[str, ...]:
    """Backends of one side; a model of both sides, as `pe-av`, is the backend of this one, `pe-av-audio`."""
    known, modality = list_backends(), MODALITY_OF[side]
    of_side = {name: f"{name}-{modality}" for name in names}
    return tuple(name if name in known or of_side[name] not in known else of_side[name] for name in names)


def _check_backends(place: str, variant: VariantParams) -> None:
    for side, modality in MODALITY_OF.items():
        backends: tuple[str, ...] = getattr(variant, side)
        kinds: dict[str, str] = {}
        for backend in backends:
            if backends.count(backend) > 1:
                raise ParameterError(f"{place}{side}: backend {backend!r} is named twice; name each once")
            if backend not in list_backends():
                raise ParameterError(f"{place}{side}: {explain_unknown(backend)}")
            kind = find_class(backend)
            if kind.modality != modality:
                raise ParameterError(
                    f"{place}{side}: backend {backend!r} makes {kind.modality} features, and {side} needs {modality}"
                )
            own = str(getattr(kind, "name", backend))
            if own in kinds:
                raise ParameterError(
                    f"{place}{side}: {kinds[own]!r} and {backend!r} are both backend {own!r}, which one side takes once"
                )
            kinds[own] = backend
