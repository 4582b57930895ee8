"""The parameters of every pipeline, checked when a run starts, before anything expensive.

One model per top-level key of `conf/base/parameters/`. The values in conf are the defaults that a run
uses; unknown keys are refused, so that a misspelt name never goes unnoticed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Params(BaseModel):
    """Base of all parameter models: unknown keys are refused, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Share = Annotated[float, Field(ge=0.0, le=1.0)]

# --- ingestion


class IngestParams(Params):
    """Where the media are and how they are probed."""

    media_dir: Path = Field(description="Folder with media, or the path of a media.csv.")
    n_workers: int | None = Field(None, ge=1, description="Files probed at the same time; all cores by default.")


# --- extraction


class ExtractParams(Params):
    """How features are extracted; what changes their numbers belongs to each backend's own parameters."""

    batch_size: int = Field(64, ge=1, description="Patches or frames per pass through the network.")
    n_workers: int | None = Field(None, ge=1, description="Decoding threads; all cores by default.")
    max_failed_share: Share = Field(0.5, description="A larger share of failed items ends the run with an error.")


# --- split


class SplitParams(Params):
    """How usable items are divided into train, val and test; groups are never divided."""

    seed: int = Field(17, ge=0, description="Another seed gives another division.")
    train_share: Share = Field(0.6, description="Expected share of groups used for training.")
    val_share: Share = Field(0.15, description="Expected share of groups used to choose the best epoch.")
    test_share: Share = Field(0.25, description="Expected share of groups used for the reported results.")
    split_dir: Path | None = Field(None, description="Folder with train.csv, test.csv and perhaps val.csv of your own.")

    @model_validator(mode="after")
    def _check_shares(self) -> SplitParams:
        total = self.train_share + self.val_share + self.test_share
        if abs(total - 1.0) > 1e-6:
            raise ValueError(f"train_share + val_share + test_share must be 1, not {total:g}")
        return self


class ReferenceParams(Params):
    """Feature files of one's own in the layout of the reference; they take the place of ingestion and extraction."""

    pairs_dir: Path | None = Field(None, description="Folder with train.csv, test.csv, train/ and test/.")
    train_data_dir: Path | None = Field(None, description="Folder with audio/ and video/ of the training items.")
    train_csv_path: Path | None = Field(None, description="Their ids.")
    test_data_dir: Path | None = Field(None, description="Folder with audio/ and video/ of the test items.")
    test_csv_path: Path | None = Field(None, description="Their ids.")
    variant: Literal["vmnet_musicnn", "vmnet_vggish"] | None = Field(
        None, description="Variant for these files; null recognises it from their shapes."
    )

    @property
    def places(self) -> dict[str, Path]:
        """The places that are given, by name."""
        return {name: value for name, value in self if name != "variant" and value is not None}


# --- evaluation


class EvaluateParams(Params):
    """How retrieval is measured."""

    ks: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        default=(1, 5, 10, 20, 25, 50, 100), min_length=1, description="Cut-offs K of Recall@K."
    )
    pool_size: int | None = Field(
        default=None,
        ge=2,
        description="None: every query searches the whole gallery. A number: consecutive pools of that size in file "
        "order, the last incomplete one dropped, ties to the lower index; 1024 is the original protocol.",
    )
    positives: Literal["id", "group"] = Field(
        default="id", description="What makes an answer right: the same item, or any item of the same group (song)."
    )
    n_resamples: int = Field(default=2000, ge=1, description="Draws of the bootstrap.")
    confidence_level: float = Field(default=0.95, gt=0, lt=1, description="Of the bootstrap intervals.")
    resample_by: Literal["group", "query"] = Field(
        default="group",
        description="Unit of the bootstrap. Clips of one song are not independent, so whole groups are drawn; "
        "without groups, queries are.",
    )
    shuffle_pairs: bool = Field(
        default=False, description="Control: mismatch the pairs on purpose; every figure should fall to chance."
    )
    top_n: int = Field(default=10, ge=0, description="Best answers kept for every query.")
    chunk_size: int = Field(default=1024, ge=1, description="Queries scored together; changes memory, not results.")
    seed: int = Field(default=17, ge=0, description="Of the bootstrap and of mismatching.")


# --- training

# What `protocol: reference` fixes: the traps of the reference code, kept so that its results can be reproduced.
REFERENCE_FIXED: dict[str, Any] = {"shuffle": False, "keep": "last", "standardise": False, "positives_by": "position"}
REFERENCE_LOSS_FIXED: dict[str, Any] = {"structure_triples": "adjacent"}
# What it proposes: its published settings, which may be overridden.
REFERENCE_PROPOSED: dict[str, Any] = {"epochs": 202, "batch_size": 1024, "learning_rate": 3e-4, "patience": None}
REFERENCE_LOSS_PROPOSED: dict[str, Any] = {"margin": 0.5, "top_k": 1024}
# What `protocol: best` proposes: the settings that won on validation pairs, see docs/quality.md.
BEST_PROPOSED: dict[str, Any] = {
    "epochs": 30,
    "batch_size": 512,
    "learning_rate": 1e-3,
    "lr_schedule": "cosine",
    "warmup_epochs": 2,
    "weight_decay": 0.01,
    "average_decay": 0.99,
    "patience": 10,
}
BEST_LOSS_PROPOSED: dict[str, Any] = {"name": "contrastive"}
BEST_MODEL_PROPOSED: dict[str, Any] = {"music_tower": "canonical", "video_tower": "canonical", "embedding_dim": 36}


class ModelParams(Params):
    """The two towers; `auto` follows the shape of the features."""

    music_tower: str = Field("auto", description="Music tower by name, or `auto`: vggish for (T, C), musicnn for (D,).")
    video_tower: str = Field("auto", description="Video tower by name, or `auto`: the one beside the music tower.")
    embedding_dim: int = Field(512, ge=2, le=65536, description="Size of the shared space.")
    dropout: float = Field(0.1, ge=0.0, lt=1.0, description="Share of activations dropped in training.")


class LossParams(Params):
    """Ranking and structure terms of VM-NET, or the contrastive loss."""

    name: Literal["vmnet", "contrastive"] = Field(
        "vmnet", description="`vmnet`: hinge and structure terms. `contrastive`: symmetric InfoNCE."
    )
    margin: float = Field(0.5, ge=0.0, le=2.0, description="Margin of the ranking terms, cosine similarity.")
    top_k: int | None = Field(None, ge=1, description="Hardest negatives kept per query; null for all.")
    negatives: Literal["hardest", "semi_hard"] = Field(
        "hardest", description="Negatives that count: the most similar, or only those less similar than the positive."
    )
    structure_triples: Literal["all", "adjacent"] = Field(
        "all", description="Triples of the structure terms: all distinct ones, or the reference's adjacent columns."
    )
    weight_xy: float = Field(3.0, ge=0.0, description="Weight of music -> video ranking.")
    weight_yx: float = Field(1.0, ge=0.0, description="Weight of video -> music ranking.")
    weight_structure_music: float = Field(0.2, ge=0.0, description="Weight of the structure of the music space.")
    weight_structure_video: float = Field(0.2, ge=0.0, description="Weight of the structure of the video space.")
    temperature: float = Field(0.07, ge=1e-3, le=1.0, description="Contrastive: first temperature.")
    learn_temperature: bool = Field(True, description="Contrastive: whether the temperature is trained.")
    memory_size: int = Field(0, ge=0, description="Contrastive: embeddings of earlier batches kept as negatives.")


class TrainParams(Params):
    """Training of one variant.

    `protocol: reference` fixes the settings in `REFERENCE_FIXED` and `REFERENCE_LOSS_FIXED` (another value given
    beside it is an error) and proposes those in `REFERENCE_PROPOSED` and `REFERENCE_LOSS_PROPOSED`. `protocol: best`
    only proposes, see `BEST_PROPOSED`.
    """

    protocol: Literal["default", "reference", "best"] = Field(
        "default",
        description="`reference` trains as the reference code does: file order, last step kept, ... `best`: the "
        "towers, loss and optimiser that retrieve best.",
    )
    seed: int = Field(0, ge=0, lt=2**63, description="Seed of weights, order and dropout.")
    epochs: int = Field(200, ge=1, description="Passes over the training pairs.")
    batch_size: int = Field(128, ge=2, description="Pairs per step; cut for small sets, with a warning.")
    learning_rate: float = Field(3e-4, gt=0.0, description="Adam's first learning rate.")
    lr_decay: float = Field(0.96, gt=0.0, le=1.0, description="Factor on the learning rate every `lr_decay_steps`.")
    lr_decay_steps: int = Field(1000, ge=1, description="Steps between two decays (staircase).")
    lr_schedule: Literal["staircase", "cosine"] = Field(
        "staircase", description="`cosine` goes down to 0 over all epochs and leaves `lr_decay` aside."
    )
    warmup_epochs: float = Field(
        0.0, ge=0.0, description="Epochs over which the learning rate rises to its first value."
    )
    weight_decay: float = Field(0.0, ge=0.0, description="Decoupled decay of weight matrices; 0 gives plain Adam.")
    average_decay: float | None = Field(
        None,
        ge=0.0,
        lt=1.0,
        description="Decay of the moving average of weights that is evaluated and kept; null: none.",
    )
    feature_noise: float = Field(
        0.0,
        ge=0.0,
        description="Deviation of noise on inputs in training, in deviations of each input if standardised.",
    )
    mixup_alpha: float = Field(0.0, ge=0.0, description="Beta parameter of mixing pairs in training; 0: no mixing.")
    mask_groups: bool = Field(
        True, description="Contrastive: other items of the same group (song) are not taken as negatives."
    )
    adam_epsilon: float = Field(1e-8, gt=0.0, description="Adam's epsilon.")
    shuffle: bool = Field(True, description="New seeded order of the training pairs every epoch.")
    positives_by: Literal["id", "group", "position"] = Field(
        "id", description="Which items match: same id, same group (song), or only the same row."
    )
    standardise: bool = Field(True, description="Scale inputs by mean and deviation of the training pairs.")
    keep: Literal["best", "last"] = Field("best", description="Weights kept: best on validation, or the last step's.")
    patience: int | None = Field(50, ge=1, description="Stop after so many evaluations without gain; null: never.")
    eval_every: int = Field(1, ge=1, description="Epochs between two evaluations on the validation pairs.")
    state_interval_s: float = Field(
        0.0, ge=0.0, description="Seconds between two writes of the state that a rerun continues from; 0: every epoch."
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="`auto` takes CUDA where there is one.")
    n_threads: int | None = Field(None, ge=1, description="CPU threads; null leaves torch's setting.")
    model: ModelParams = Field(default_factory=lambda: ModelParams.model_validate({}))
    loss: LossParams = Field(default_factory=lambda: LossParams.model_validate({}))

    @model_validator(mode="before")
    @classmethod
    def _apply_protocol(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        if data.get("protocol") == "reference":
            settings = _impose(data, REFERENCE_FIXED, REFERENCE_PROPOSED)
            return {**settings, "loss": _impose(_as_dict(data, "loss"), REFERENCE_LOSS_FIXED, REFERENCE_LOSS_PROPOSED)}
        if data.get("protocol") == "best":
            nested = {
                "loss": {**BEST_LOSS_PROPOSED, **_as_dict(data, "loss")},
                "model": {**BEST_MODEL_PROPOSED, **_as_dict(data, "model")},
            }
            return {**BEST_PROPOSED, **data, **nested}
        return data


def _as_dict(data: dict[str, Any], name: str) -> dict[str, Any]:
    """What was given under a nested name, as plain settings."""
    given = data.get(name) or {}
    return given.model_dump(exclude_unset=True) if isinstance(given, BaseModel) else dict(given)


def _impose(given: dict[str, Any], fixed: dict[str, Any], proposed: dict[str, Any]) -> dict[str, Any]:
    """Settings of a protocol under what was given.

    Raises:
        ValueError: A fixed setting was given another value.
    """
    for name, value in fixed.items():
        if name in given and given[name] != value:
            raise ValueError(
                f"protocol 'reference' means {name}={value!r}, but {name}={given[name]!r} was given; "
                f"remove {name} or use protocol 'default'"
            )
    return {**proposed, **given, **fixed}
