"""Training of one variant: its towers, its loss, and the protocols that propose or fix settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, model_validator

from vmnet_pipeline.params.base import Location, Params

Weight = Annotated[float, Field(gt=0.0, le=1000.0)]
# What `protocol: reference` fixes: the traps of the reference code, kept so that its results can be reproduced.
REFERENCE_FIXED: dict[str, Any] = {"shuffle": False, "keep": "last", "standardise": False, "positives_by": "position"}
REFERENCE_LOSS_FIXED: dict[str, Any] = {"structure_triples": "adjacent", "hinge": "mean"}
# What it proposes: its published settings, which may be overridden.
REFERENCE_PROPOSED: dict[str, Any] = {"epochs": 202, "batch_size": 1024, "learning_rate": 3e-4, "patience": None}
# How TensorFlow computes, and how often the reference measures and saves.
REFERENCE_PROPOSED |= {"epsilon_before_correction": True, "population_variance": True}
REFERENCE_PROPOSED |= {"curve_every_steps": 10, "keep_every_steps": 50}
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
# Members of `protocol: best`, laid over its own settings: they know different things, and one is in closed form.
BEST_MEMBERS: dict[str, Any] = {
    "canonical": {},
    "kernel": {
        "model": {"music_tower": "kernel", "video_tower": "kernel", "embedding_dim": 256},
        "whiten": {"music": None, "video": None},
    },
    "vmnet": {
        "epochs": 40,
        "batch_size": 128,
        "learning_rate": 3e-4,
        "patience": 20,
        "model": {"music_tower": "auto", "video_tower": "auto", "embedding_dim": 512},
        "loss": {"name": "vmnet"},
        "whiten": {"music": None, "video": None},
    },
}
BEST_LOSS_PROPOSED: dict[str, Any] = {"name": "contrastive"}
BEST_MODEL_PROPOSED: dict[str, Any] = {"music_tower": "canonical", "video_tower": "canonical", "embedding_dim": 36}
_TOWERS = ("music_tower", "video_tower")


# Towers that are fitted in closed form; no step trains them.
CLOSED_FORM_TOWERS = frozenset({"kernel", "reduced"})
# Towers that take a sequence of steps per item, so that the features are packed without pooling.
SEQUENCE_TOWERS = frozenset({"sequence", "transformer"})


class ModelParams(Params):
    """The two towers; `auto` follows the shape of the features."""

    music_tower: str = Field(
        "auto",
        description="Music tower by name, or `auto`: vggish for (T, C), musicnn for (D,). `sequence` and `transformer` "
        "take features that keep their time. `projection` is one matrix, that of zero-shot networks.",
    )
    video_tower: str = Field("auto", description="Video tower by name, or `auto`: the one paired with the music tower.")
    max_steps: int = Field(
        128, ge=1, le=4096, description="Towers over sequences: longer ones are thinned to this many steps."
    )
    embedding_dim: int = Field(512, ge=2, le=65536, description="Size of the shared space.")
    dropout: float = Field(0.1, ge=0.0, lt=1.0, description="Share of activations dropped in training.")
    music_layers: int | None = Field(
        None, ge=1, le=5, description="Fully connected layers of a VM-NET music tower; null: the published 3."
    )
    video_layers: int | None = Field(None, ge=1, le=5, description="The same of video; null: the published 2.")
    linear: bool = Field(False, description="VM-NET towers without ReLU, as those of the 2017 code.")

    @property
    def is_closed_form(self) -> bool:
        """Whether no step trains these towers."""
        return self.music_tower in CLOSED_FORM_TOWERS

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


class WhitenParams(Params):
    """How much each side's inputs are whitened, behind standardising; null: chosen by the ranks of held-out pairs."""

    music: float | None = Field(
        0.0, ge=0.0, le=1.0, description="Principal directions are divided by their deviation to this power; 0: none."
    )
    video: float | None = Field(0.0, ge=0.0, le=1.0, description="The same of video.")

    @property
    def is_open(self) -> bool:
        """Whether an exponent is to be chosen."""
        return self.music is None or self.video is None

    def fill(self, chosen: WhitenParams) -> WhitenParams:
        """These exponents, with chosen ones where they were open."""
        music, video = (getattr(chosen if getattr(self, side) is None else self, side) for side in ("music", "video"))
        return type(self)(music=music, video=video)

    def list_sides(self) -> list[str]:
        """Sides that are whitened."""
        return [side for side in ("music", "video") if getattr(self, side)]


class KernelParams(Params):
    """Kernel towers; null: chosen by cross-validation over groups."""

    width: float | None = Field(
        None, gt=0.0, description="Of the Gaussian kernel, its exponent at the median squared distance of two items."
    )
    ridge: float | None = Field(
        None, gt=0.0, le=1.0, description="Regularisation; features of a kernel have variance 1."
    )


class TrainParams(Params):
    """Training of one variant.

    `protocol: reference` fixes the settings in `REFERENCE_FIXED` and `REFERENCE_LOSS_FIXED` (another value given
    beside it is an error) and proposes those in `REFERENCE_PROPOSED` and `REFERENCE_LOSS_PROPOSED`. `protocol: best`
    only proposes, see `BEST_PROPOSED`.
    """

    protocol: Literal["default", "reference", "best"] = Field(
        "default",
        description="`best`: networks of several kinds that retrieve best together. `default`: VM-NET alone. "
        "`reference` trains as the reference code does: file order, last step kept, ... The project's configuration, "
        "conf/base, sets `best`; the default is that of `TrainParams()` in Python.",
    )
    seed: int = Field(0, ge=0, lt=2**63, description="Seed of weights, order and dropout.")
    epochs: int = Field(
        200,
        ge=0,
        description="Passes over the training pairs; 0 keeps the start: CCA, or the checkpoint of `start_from`.",
    )
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
    epsilon_before_correction: bool = Field(
        False, description="Add Adam's epsilon before the bias correction, as TensorFlow does; torch adds it after it."
    )
    population_variance: bool = Field(
        False,
        description="Batch norm behind fully connected layers follows the variance of n items divided by n, as "
        "TensorFlow does; torch divides by n - 1.",
    )
    shuffle: bool = Field(True, description="New seeded order of the training pairs every epoch.")
    positives_by: Literal["id", "group", "position"] = Field(
        "id", description="Which items match: same id, same group (song), or only the same row."
    )
    standardise: bool = Field(True, description="Scale inputs by mean and deviation of the training pairs.")
    part_weights: Literal["validation", "equal"] | dict[str, Weight] = Field(
        "validation",
        description="How much each backend counts where a side has several. `equal`: the same total variance; "
        "`validation`: changed where that helps on the validation pairs; or a factor per backend on its deviation.",
    )
    keep: Literal["best", "last"] = Field("best", description="Weights kept: best on validation, or the last step's.")
    patience: int | None = Field(50, ge=1, description="Stop after so many evaluations without gain; null: never.")
    eval_every: int = Field(1, ge=1, description="Epochs between two evaluations on the validation pairs.")
    state_interval_s: float = Field(
        5.0, ge=0.0, description="Seconds between two writes of the state that a rerun continues from; 0: every epoch."
    )
    keep_every_steps: int | None = Field(
        None, ge=1, description="Steps between checkpoints kept in addition to the last one; null: none."
    )
    curve_every_steps: int | None = Field(
        None,
        ge=1,
        description="Only with `protocol: reference`: steps between two measurements on a batch of training and one of "
        "test pairs, for the reference's own curves; null: none.",
    )
    start_from: Location | None = Field(
        None,
        description="Checkpoint to train on from, of this project or of the reference; the latter goes on with its "
        "optimiser and its step.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="`auto` takes CUDA where there is one.")
    n_threads: int | None = Field(None, ge=1, description="CPU threads; null leaves torch's setting.")
    precision: Literal["auto", "f32", "bf16"] = Field(
        "auto",
        description="Of the network in training; weights and loss are f32 always. `auto`: bf16 on CUDA, and with "
        "`protocol: best` on processors that have it.",
    )
    compile: bool = Field(False, description="Compile the network with torch.compile, which takes a minute at first.")
    n_members: int = Field(
        1, ge=1, le=64, description="Networks of different seeds, trained one after the other, that answer together."
    )
    members: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="Networks of different kinds that answer together: a name and settings laid over these. Their "
        "weights are chosen on validation pairs. Empty: one network. `protocol: best` proposes three.",
    )
    few_pairs: int = Field(
        500,
        ge=0,
        description="Members: with fewer training and validation pairs, those that can are fitted in closed form on "
        "all of them, and weights come from cross-validation over groups.",
    )
    model: ModelParams = Field(default_factory=lambda: ModelParams.model_validate({}))
    whiten: WhitenParams = Field(default_factory=lambda: WhitenParams.model_validate({}))
    kernel: KernelParams = Field(default_factory=lambda: KernelParams.model_validate({}))
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
            model = _as_dict(data, "model")
            members, proposed = ({}, {}) if _asks_for_towers(model) else (BEST_MEMBERS, BEST_MODEL_PROPOSED)
            nested = {"loss": {**BEST_LOSS_PROPOSED, **_as_dict(data, "loss")}, "model": {**proposed, **model}}
            return {**BEST_PROPOSED, "members": members, **data, **nested}
        return data

    @model_validator(mode="after")
    def _check_curves(self) -> TrainParams:
        if self.curve_every_steps and self.protocol != "reference":
            raise ValueError(
                "curve_every_steps watches the test pairs while training, which only protocol 'reference' does; "
                "remove it, or use that protocol"
            )
        return self

    @model_validator(mode="after")
    def _check_start(self) -> TrainParams:
        if self.start_from is not None and self.n_members > 1:
            raise ValueError("start_from is one network, and n_members trains several from seeds; set n_members to 1")
        return self

    @model_validator(mode="after")
    def _check_members(self) -> TrainParams:
        if "" in self.members or any("members" in settings for settings in self.members.values()):
            raise ValueError("each member needs a name and settings without members of its own")
        assert self.kinds  # noqa: S101 - reads the settings of members
        return self

    @model_validator(mode="after")
    def _check_mixup(self) -> TrainParams:
        if self.mixup_alpha and (self.model.music_steps or self.model.video_steps):
            raise ValueError(
                "mixup_alpha mixes features of one shape, and towers over sequences take items of unlike length; "
                "set mixup_alpha to 0 or use other towers"
            )
        return self

    @property
    def kinds(self) -> dict[str, TrainParams]:
        """Settings of each member by name; of one network itself, without a name.

        Raises:
            ValidationError: A member's settings are unknown or out of bounds.
        """
        if not self.members:
            return {"": self}
        whole = self.model_copy(update={"members": {}})
        given = {name for name, value in BEST_PROPOSED.items() if getattr(self, name) != value}
        kinds = {}
        for name, settings in self.members.items():
            proposed = BEST_MEMBERS.get(name, {})  # what was given counts for these, too
            gives_way = {key for key in given & proposed.keys() if settings.get(key) == proposed[key]}
            kinds[name] = whole.override({key: value for key, value in settings.items() if key not in gives_way})
        return kinds

    @property
    def music_steps(self) -> int | None:
        """Most steps of a music sequence; None where every tower takes pooled features."""
        return max((part.model.music_steps or 0 for part in self.kinds.values()), default=0) or None

    @property
    def video_steps(self) -> int | None:
        """The same of video."""
        return max((part.model.video_steps or 0 for part in self.kinds.values()), default=0) or None

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


def _asks_for_towers(model: dict[str, Any]) -> bool:
    """Whether a tower other than those of `protocol: best` is given, of one side or both: then it is one network."""
    return any(model.get(name, BEST_MODEL_PROPOSED[name]) != BEST_MODEL_PROPOSED[name] for name in _TOWERS)


def _without(given: dict[str, Any], others: dict[str, Any]) -> dict[str, Any]:
    """What is given, less what is the same in `others`."""
    kept: dict[str, Any] = {}
    for name, value in given.items():
        if name in others and others[name] == value:
            continue
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
