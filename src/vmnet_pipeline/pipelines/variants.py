"""The variants of a project: those that are always there, and those of its parameter `variants`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from vmnet_pipeline.backends.registry import BACKENDS, get_backend
from vmnet_pipeline.errors import ParameterError, describe_validation
from vmnet_pipeline.params import DEFAULT_VARIANT, VARIANTS, VariantParams
from vmnet_pipeline.types import MODALITY_OF

if TYPE_CHECKING:
    from collections.abc import Mapping

STEPS = ("ingest", "split", "train", "evaluate", "embed", "index", "compare", "tune")
"""Pipelines of the default variant, so no names for a variant."""


def read_variants(parameters: Mapping[str, Any]) -> dict[str, VariantParams]:
    """All variants, the default one first.

    Args:
        parameters: All parameters of the project; `variant` names the default, `variants` adds some.

    Raises:
        ParameterError: A variant or backend cannot be used, or there is no variant of that name.
    """
    given = parameters.get("variants") or {}
    if not isinstance(given, dict):
        raise ParameterError("variants: must map names to the backends of each side, music and video")
    variants = {**VARIANTS, **{str(name): _read_variant(str(name), content) for name, content in given.items()}}
    chosen = str(parameters.get("variant") or DEFAULT_VARIANT)
    if chosen not in variants:
        raise ParameterError(
            f"variant: there is no variant {chosen!r}; choose one of {', '.join(variants)}, or define it under "
            "`variants` in conf/local/parameters.yml"
        )
    return {chosen: variants[chosen], **variants}


def _read_variant(name: str, content: Any) -> VariantParams:
    from pydantic import ValidationError

    taken = name in STEPS or name in BACKENDS or name.startswith(("extract_", "embed_", "index_", "__"))
    if taken or not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise ParameterError(
            f"variants: {name!r} is no name for a variant; use letters, digits, '-' and '_', and no name of a pipeline "
            "or backend"
        )
    try:
        variant = VariantParams.model_validate(content)
    except ValidationError as error:
        raise ParameterError(f"variants.{name}.{describe_validation(error, show_value=True)}") from error
    _check_backends(name, variant)
    return variant


def _check_backends(name: str, variant: VariantParams) -> None:
    for side, modality in MODALITY_OF.items():
        backends: tuple[str, ...] = getattr(variant, side)
        for backend in backends:
            place = f"variants.{name}.{side}"
            if backends.count(backend) > 1:
                raise ParameterError(f"{place}: backend {backend!r} is named twice; name each once")
            if backend not in BACKENDS:
                raise ParameterError(f"{place}: unknown backend {backend!r}; known are {', '.join(sorted(BACKENDS))}")
            made = get_backend(backend).modality
            if made != modality:
                raise ParameterError(f"{place}: backend {backend!r} makes {made} features, and {side} needs {modality}")
