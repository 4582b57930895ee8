"""What the parameter models have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


class Params(BaseModel):
    """Base of all parameter models: unknown keys are refused, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class LimitParams(Params):
    """What reading one media file may cost: it is read in a child process, which is ended where it goes too far."""

    seconds: float | None = Field(
        600.0, gt=0.0, description="Longest time for one file, which then fails as `timed_out`; null: no limit."
    )
    memory_mb: int | None = Field(
        4096,
        ge=128,
        description="Most memory of the process that reads a file, else `out_of_memory`; null: no limit.",
    )


Share = Annotated[float, Field(ge=0.0, le=1.0)]
Location = Annotated[str, BeforeValidator(lambda place: str(place) if isinstance(place, Path) else place)]
"""A local path or a URL. A `Path` would make `s3:/bucket` of `s3://bucket`."""
