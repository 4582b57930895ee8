"""Parameters of many trainings: a comparison of variants, and a search for settings."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from vmnet_pipeline.params.base import Params, Share

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,59}$")]
BaselineName = Literal["chance", "cca", "pls", "neighbours"]
BASELINES: tuple[BaselineName, ...] = ("chance", "cca", "pls", "neighbours")


class CompareParams(Params):
    """Variants of training side by side, on the same pairs."""

    variants: dict[Name, dict[str, Any]] = Field(
        min_length=1, description="Name of each variant to settings laid over `train`."
    )
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**63)], ...] = Field(
        (0, 1, 2), min_length=1, description="Every variant is trained with each of these seeds."
    )
    baselines: tuple[BaselineName, ...] = Field(
        BASELINES, description="Methods without training, in addition to the variants."
    )
    against: str | None = Field(
        None, description="Row that the others are compared with, pair by pair; null: the first variant."
    )
    ks: tuple[Annotated[int, Field(ge=1)], ...] = Field((1, 5, 10), min_length=1, description="Cut-offs of Recall@K.")
    n_resamples: int = Field(2000, ge=1, description="Draws of the bootstrap over groups and seeds.")
    confidence_level: float = Field(0.95, gt=0, lt=1, description="Of the bootstrap intervals.")
    seed: int = Field(17, ge=0, description="Of the bootstrap and of chance.")

    @model_validator(mode="after")
    def _check_names(self) -> CompareParams:
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError("seeds must differ from each other")
        if taken := sorted({*BASELINES} & {*self.variants}):
            raise ValueError(f"{', '.join(taken)}: a variant cannot have the name of a baseline")
        if self.against is not None and self.against not in {*self.variants, *self.baselines}:
            raise ValueError(f"against {self.against!r} is neither a variant nor one of the baselines")
        return self


class SearchDimension(Params):
    """Values of one setting among which a search chooses: a range, or choices."""

    low: int | float | None = Field(None, description="Smallest value; whole numbers at both ends give whole numbers.")
    high: int | float | None = Field(None, description="Largest value.")
    log: bool = Field(False, description="Search the logarithm, for values that span several powers of ten.")
    choices: tuple[bool | int | float | str | None, ...] | None = Field(None, description="Values to choose from.")

    @model_validator(mode="after")
    def _check_form(self) -> SearchDimension:
        if (self.choices is None) == (self.low is None or self.high is None):
            raise ValueError("give either low and high, or choices")
        if self.choices is not None and (not self.choices or self.low is not None or self.high is not None or self.log):
            raise ValueError("choices exclude low, high and log, and must not be empty")
        if self.low is not None and self.high is not None and not self.low < self.high:
            raise ValueError(f"low {self.low:g} must be below high {self.high:g}")
        if self.log and self.low is not None and self.low <= 0:
            raise ValueError("log needs a low above 0")
        return self


class TuneParams(Params):
    """Search for training settings that are best on the validation pairs."""

    space: dict[str, SearchDimension] = Field(
        min_length=1, description="Setting of `train` (`learning_rate`, `loss.margin`, ...) to its values."
    )
    fixed: dict[str, Any] = Field({}, description="Settings laid over `train` in every trial.")
    n_trials: int = Field(30, ge=1, description="Trials wanted in all; a rerun does those that are missing.")
    seed: int = Field(17, ge=0, description="Of the choice of values.")
    startup_trials: int = Field(8, ge=1, description="Trials at random before the search learns from the earlier ones.")
    prune_after_epochs: int | None = Field(
        5, ge=1, description="Epochs after which a trial below the median of the earlier ones ends; null: never."
    )
    max_failed_share: Share = Field(0.5, description="A larger share of failed trials ends the run with an error.")
