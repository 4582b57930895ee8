"""Base of the parameter models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

if TYPE_CHECKING:
    from collections.abc import Mapping


class Params(BaseModel):
    """Base of all parameter models: unknown keys are refused, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class LimitParams(Params):
    """Limits of the child process that reads a media file; beyond them it is ended."""

    seconds: float | None = Field(
        600.0, gt=0.0, description="Longest time for one file, which then fails as `timed_out`; null: no limit."
    )
    memory_mb: int | None = Field(
        4096, ge=128, description="Most memory of the process that reads a file, else `out_of_memory`; null: no limit."
    )


Share = Annotated[float, Field(ge=0.0, le=1.0)]
Location = Annotated[str, BeforeValidator(lambda place: str(place) if isinstance(place, Path) else place)]
"""A local path or a URL. A `Path` would make `s3:/bucket` of `s3://bucket`."""


def flatten_settings(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested mappings and parameter models to one level, names joined by dots.

    Example:
        >>> flatten_settings({"train": {"epochs": 3, "loss": {"margin": 0.1}}})
        {'train.epochs': 3, 'train.loss.margin': 0.1}
    """
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        content = value.model_dump() if isinstance(value, BaseModel) else value
        flat |= flatten_settings(content, f"{prefix}{name}.") if isinstance(content, dict) else {prefix + name: content}
    return flat
