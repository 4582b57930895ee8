"""The parameters of every pipeline, checked when a run starts, before anything expensive.

One model per top-level key of `conf/base/parameters/`. The values in conf are the defaults that a run
uses; unknown keys are refused, so that a misspelt name never goes unnoticed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator


class Params(BaseModel):
    """Base of all parameter models: unknown keys are refused, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Share = Annotated[float, Field(ge=0.0, le=1.0)]
Location = Annotated[str, BeforeValidator(lambda place: str(place) if isinstance(place, Path) else place)]
"""A local path or a URL. A `Path` would make `s3:/bucket` of `s3://bucket`."""

# --- ingestion


class IngestParams(Params):
    """Where the media are and how they are probed."""

    media_dir: Location = Field(description="Folder with media, or the path of a media.csv; local or a URL.")
    n_workers: int | None = Field(None, ge=1, description="Files probed at the same time; all cores by default.")


# --- extraction


class ExecutorParams(Params):
    """What carries an extraction out."""

    kind: Literal["auto", "serial", "processes", "dask"] = Field(
        "auto",
        description="`serial`: threads of this process. `processes`: workers of their own, so that a crash or a hang "
        "costs one item. `dask`: the workers of a cluster. `auto`: dask if there is an address, else serial for "
        "few items and processes for many.",
    )
    address: str | None = Field(None, description="Scheduler of an existing Dask cluster, `tcp://HOST:PORT`.")

    @model_validator(mode="after")
    def _check_address(self) -> ExecutorParams:
        if self.kind == "dask" and self.address is None:
            raise ValueError("kind dask needs the address of a scheduler, tcp://HOST:PORT")
        if self.kind in ("serial", "processes") and self.address is not None:
            raise ValueError(f"an address is of no use to kind {self.kind}; take kind dask")
        return self


class ArrayParams(Params):
    """One of several runs that share a collection between them, without knowing of each other."""

    worker: int | None = Field(None, ge=0, description="Number of this run, from 0; `--params worker=I,n_workers=N`.")
    n_workers: int | None = Field(None, ge=1, description="How many runs share the collection.")

    @model_validator(mode="after")
    def _check_worker(self) -> ArrayParams:
        if (self.worker is None) != (self.n_workers is None):
            raise ValueError("worker=I and n_workers=N belong together")
        if self.worker is not None and self.n_workers is not None and self.worker >= self.n_workers:
            raise ValueError(f"worker={self.worker} of n_workers={self.n_workers}: workers are counted from 0")
        return self

    @property
    def shard(self) -> tuple[int, int] | None:
        """(I, N), or None for a run that does everything."""
        return None if self.worker is None or self.n_workers is None else (self.worker, self.n_workers)


class ExtractParams(Params):
    """How features are extracted; what changes their numbers belongs to each backend's own parameters."""

    batch_size: int = Field(64, ge=1, description="Patches or frames per pass through the network.")
    n_workers: int | None = Field(
        None, ge=1, description="Decoding threads of `serial`, or `processes`; as many as cores by default."
    )
    item_timeout_s: float | None = Field(
        3600.0, gt=0.0, description="A worker (not `serial`) that finishes no item for so long is ended; null: never."
    )
    max_failed_share: Share = Field(0.5, description="A larger share of failed items ends the run with an error.")
    executor: ExecutorParams = Field(default_factory=lambda: ExecutorParams.model_validate({}))
    array: ArrayParams = Field(default_factory=lambda: ArrayParams.model_validate({}))


# --- split


class SplitParams(Params):
    """How usable items are divided into train, val and test; groups are never divided."""

    seed: int = Field(17, ge=0, description="Another seed gives another division.")
    train_share: Share = Field(0.6, description="Expected share of groups used for training.")
    val_share: Share = Field(0.15, description="Expected share of groups used to choose the best epoch.")
    test_share: Share = Field(0.25, description="Expected share of groups used for the reported results.")
    split_dir: Location | None = Field(
        None, description="Folder with train.csv, test.csv and perhaps val.csv of your own; local or a URL."
    )

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
    pool_sizes: tuple[Annotated[int, Field(ge=2)], ...] = Field(
        default=(1000, 1024, 2000),
        description="Sizes of random pools that recall is also told for, to compare with papers; expected over all "
        "such pools. Those not smaller than the gallery are left out.",
    )
    similarity: Literal["cosine", "csls"] = Field(
        default="cosine", description="`csls` lowers the scores of items that are close to everything (hubs)."
    )
    csls_neighbours: int = Field(default=10, ge=1, description="Neighbours whose mean score `csls` takes off.")
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


# --- embedding and index


class EmbedParams(Params):
    """How whole collections are embedded."""

    batch_size: int = Field(1024, ge=1, description="Items embedded together; changes memory, not results.")


IndexKind = Literal["flat", "hnsw", "ivfpq"]


class IndexParams(Params):
    """How the search index of a collection is built and searched."""

    kind: Literal["auto", "flat", "hnsw", "ivfpq"] = Field(
        "auto", description="`flat` is exact; `auto` takes it up to `flat_max_items`, then `hnsw`, then `ivfpq`."
    )
    flat_max_items: int = Field(100_000, ge=0, description="`auto`: largest collection that is searched exactly.")
    hnsw_max_items: int = Field(
        4_000_000, ge=0, description="`auto`: largest collection for `hnsw`, which keeps whole vectors in memory."
    )
    hnsw_links: int = Field(32, ge=4, le=128, description="HNSW: links per item and level.")
    hnsw_build_width: int = Field(80, ge=8, le=2000, description="HNSW: candidates looked at when an item is added.")
    hnsw_search_width: int = Field(96, ge=1, le=10_000, description="HNSW: candidates looked at in a search.")
    ivf_lists: int | None = Field(None, ge=1, description="IVF-PQ: clusters; null: 4 times the square root of items.")
    ivf_probes: int = Field(48, ge=1, description="IVF-PQ: clusters looked at in a search.")
    pq_bytes: int = Field(64, ge=1, le=512, description="IVF-PQ: bytes kept per item; must divide the embedding.")
    max_removed_share: Share = Field(
        0.2, description="Removed items stay in the index, hidden; above this share of them it is built anew."
    )
    rebuild: bool = Field(False, description="Build anew instead of adding and removing what has changed.")
    n_tags: int = Field(3, ge=0, le=50, description="Tags per item, from stored musicnn features; 0: none.")


# --- training

# What `protocol: reference` fixes: the traps of the reference code, kept so that its results can be reproduced.
REFERENCE_FIXED: dict[str, Any] = {"shuffle": False, "keep": "last", "standardise": False, "positives_by": "position"}
REFERENCE_LOSS_FIXED: dict[str, Any] = {"structure_triples": "adjacent", "hinge": "mean"}
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


# Towers that take a sequence of steps per item, so that the features are packed without pooling.
SEQUENCE_TOWERS = frozenset({"sequence", "transformer"})


class ModelParams(Params):
    """The two towers; `auto` follows the shape of the features."""

    music_tower: str = Field(
        "auto",
        description="Music tower by name, or `auto`: vggish for (T, C), musicnn for (D,). `sequence` and `transformer` "
        "take features that keep their time.",
    )
    video_tower: str = Field("auto", description="Video tower by name, or `auto`: the one beside the music tower.")
    max_steps: int = Field(
        128, ge=1, le=4096, description="Towers over sequences: longer ones are thinned to this many steps."
    )
    embedding_dim: int = Field(512, ge=2, le=65536, description="Size of the shared space.")
    dropout: float = Field(0.1, ge=0.0, lt=1.0, description="Share of activations dropped in training.")

    @property
    def music_steps(self) -> int | None:
        """Most steps of a music sequence; None where the tower takes pooled features."""
        return self.max_steps if self.music_tower in SEQUENCE_TOWERS else None

    @property
    def video_steps(self) -> int | None:
        """The same of video; `auto` is the tower beside that of music."""
        tower = self.music_tower if self.video_tower == "auto" else self.video_tower
        return self.max_steps if tower in SEQUENCE_TOWERS else None


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
    hinge: Literal["mean", "sum"] = Field(
        "mean", description="A query's cost: mean over the negatives kept, or, as in the paper, sum over the violating."
    )
    structure_triples: Literal["all", "sampled", "adjacent"] = Field(
        "all",
        description="Triples of the structure terms: all distinct ones, a random draw of them in every step, or the "
        "reference's adjacent columns.",
    )
    n_structure_triples: int = Field(10_000, ge=1, description="How many triples `sampled` draws in a step.")
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
    precision: Literal["auto", "f32", "bf16"] = Field(
        "auto", description="Of the network in training; weights and loss are f32 always. `auto`: bf16 on CUDA."
    )
    compile: bool = Field(False, description="Compile the network with torch.compile, which takes a minute at first.")
    n_members: int = Field(
        1, ge=1, le=64, description="Networks of different seeds, trained one after the other, that answer together."
    )
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

    @model_validator(mode="after")
    def _check_mixup(self) -> TrainParams:
        if self.mixup_alpha and (self.model.music_steps or self.model.video_steps):
            raise ValueError(
                "mixup_alpha mixes features of one shape, and towers over sequences take items of unlike length; "
                "set mixup_alpha to 0 or use other towers"
            )
        return self

    def override(self, settings: Mapping[str, Any]) -> TrainParams:
        """These settings with others laid over them.

        Only what was given counts, not defaults; where the protocol changes, what the old one had put there goes too.

        Raises:
            ValidationError: A name is unknown, a value is out of bounds, or it contradicts the protocol.
        """
        given = self.model_dump(exclude_unset=True)
        if settings.get("protocol", self.protocol) != self.protocol:
            own = type(self).model_validate({"protocol": self.protocol}).model_dump(exclude_unset=True)
            given = _without(given, own)
        return type(self).model_validate(_lay_over(given, settings))


def _without(given: dict[str, Any], others: dict[str, Any]) -> dict[str, Any]:
    """What is given, less what is the same in `others`."""
    kept: dict[str, Any] = {}
    for name, value in given.items():
        if isinstance(value, dict) and isinstance(others.get(name), dict):
            kept[name] = _without(value, others[name])
        elif name not in others or others[name] != value:
            kept[name] = value
    return kept


def _lay_over(given: dict[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings over nested settings; what is not named stays."""
    merged = dict(given)
    for name, value in settings.items():
        nests = isinstance(value, dict) and isinstance(merged.get(name), dict)
        merged[name] = _lay_over(merged[name], value) if nests else value
    return merged


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


# --- comparison and search

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
    baselines: tuple[BaselineName, ...] = Field(BASELINES, description="Methods without training beside the variants.")
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
            raise ValueError("choices stand alone, and there must be some")
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
