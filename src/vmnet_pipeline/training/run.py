"""Everything that moves while training, and how it is set up."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from vmnet_pipeline.errors import ParameterError, TrainingError
from vmnet_pipeline.models.cca_tower import fit_towers
from vmnet_pipeline.models.checkpoints import check_shapes
from vmnet_pipeline.models.factory import build_model, choose_music_tower
from vmnet_pipeline.models.losses import ContrastiveLoss, build_loss
from vmnet_pipeline.training.batch_norm import use_population_variance
from vmnet_pipeline.training.data import derive_seed, encode_matches, fit_batch_size, halve_groups, measure_scale
from vmnet_pipeline.training.distributed import fit_share, own_device, share_batch_norms, share_model
from vmnet_pipeline.training.optim import WeightAverage, build_optimiser, learning_rate
from vmnet_pipeline.types import Sequences

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np

    from vmnet_pipeline.models.checkpoints import StartPoint
    from vmnet_pipeline.models.two_tower import Standardise, VMNet
    from vmnet_pipeline.models.types import PairOutput
    from vmnet_pipeline.params import TrainParams
    from vmnet_pipeline.params.training import ModelParams
    from vmnet_pipeline.training.step import Batch
    from vmnet_pipeline.types import EpochRecord, FeatureArray, PairArrays

logger = logging.getLogger(__name__)


@dataclass
class Run:
    """A training under way.

    Attributes:
        params: Settings.
        config: Arguments of `build_model`.
        train: Training pairs.
        val: Validation pairs, if there are any.
        device: Where the network is.
        model: The network.
        forward: What a step calls: the network, perhaps compiled, perhaps shared with other processes.
        loss: Loss with its own weights.
        optimiser: Of both.
        batch_size: Pairs per step, those of other processes included.
        train_codes: (n,) int64, equal for training pairs that match.
        val_codes: The same of the validation pairs.
        groups: (n,) int64, equal for training pairs of one group; None when groups do not matter.
        average: The moving average of weights, if there is one.
        steps: Steps done, those before `first_step` included.
        first_step: Steps that led to the checkpoint that this training started from; 0 for a fresh one.
        on_step: Called after every step; it must leave the network as it is.
        history: Epochs done.
        best_epoch: Best one so far; 0 before the first.
        best_tensors: Its weights.
        saved_best_epoch: The best epoch whose weights this training has in the folder of its state; 0 before the first.
    """

    params: TrainParams
    config: dict[str, Any]
    train: PairArrays
    val: PairArrays | None
    device: torch.device
    model: VMNet
    forward: Callable[..., PairOutput]
    loss: nn.Module
    optimiser: torch.optim.Adam
    batch_size: int
    train_codes: np.ndarray
    val_codes: np.ndarray | None
    groups: np.ndarray | None
    average: WeightAverage | None
    steps: int = 0
    first_step: int = 0
    on_step: Callable[[Run, Batch], None] | None = None
    history: list[EpochRecord] = field(default_factory=list)
    best_epoch: int = 0
    best_tensors: dict[str, Tensor] = field(default_factory=dict)
    saved_best_epoch: int = 0

    @property
    def kept_model(self) -> VMNet:
        """The network that is evaluated and kept: the average of weights where there is one."""
        return self.model if self.average is None else self.average.model

    @property
    def uses_bf16(self) -> bool:
        """Whether the network computes in bf16 while it trains; weights and loss are float32 always."""
        precision = self.params.precision
        return precision == "bf16" or (precision == "auto" and self.device.type == "cuda")

    def learning_rate(self, step: int) -> float:
        """Learning rate of a step, counted from 0; a staircase goes on from where a checkpoint left it."""
        done = 0 if self.params.lr_schedule == "staircase" else self.first_step
        return learning_rate(self.params, step - done, len(self.train) // self.batch_size)

    @property
    def average_model(self) -> VMNet | None:
        """The average of weights, if there is one."""
        return None if self.average is None else self.average.model


def model_config_of(params: TrainParams, pairs: PairArrays) -> dict[str, Any]:
    """Arguments of `build_model` for these parameters and feature shapes; resolves `auto`."""
    music_shape = [int(size) for size in pairs.music.shape[1:]]
    music_tower = params.model.music_tower
    music_tower = choose_music_tower(music_shape) if music_tower == "auto" else music_tower
    return {
        "music_tower": music_tower,
        "video_tower": music_tower if params.model.video_tower == "auto" else params.model.video_tower,
        "music_shape": music_shape,
        "video_shape": [int(size) for size in pairs.video.shape[1:]],
        "embedding_dim": params.model.embedding_dim,
        "dropout": params.model.dropout,
        "standardise": params.standardise,
        **_depth_of(params.model),
    }


def _depth_of(model: ModelParams) -> dict[str, Any]:
    """What is not as published; checkpoints of published towers do not name it."""
    depth = {"music_layers": model.music_layers, "video_layers": model.video_layers, "linear": model.linear or None}
    return {name: value for name, value in depth.items() if value is not None}


def config_of_start(params: TrainParams, pairs: PairArrays, start: StartPoint) -> dict[str, Any]:
    """Arguments of `build_model` for training on from a checkpoint: its own, only the dropout is that of the settings.

    Raises:
        CheckpointError: It takes features of another shape.
        ParameterError: It is several networks in one.
    """
    config = start.checkpoint.model_config
    if config.get("n_members", 1) > 1:
        raise ParameterError("start_from is an ensemble, which cannot be trained on; take a checkpoint of one network")
    check_shapes(start.checkpoint, pairs.music.shape[1:], pairs.video.shape[1:])
    return {**config, "dropout": params.model.dropout}


def start_run(
    params: TrainParams,
    train: PairArrays,
    val: PairArrays | None,
    config: dict[str, Any],
    start: StartPoint | None = None,
) -> Run:
    """A run before its first step: with all that is taken from the training pairs, or as a checkpoint has it.

    Raises:
        TrainingError: There are too few pairs, or more processes than pairs in a batch.
        ParameterError: A tower is unknown, or a setting does not fit the features.
    """
    batch_size = fit_share(fit_batch_size(params.batch_size, len(train), shuffle=params.shuffle))
    if params.mixup_alpha and (isinstance(train.music, Sequences) or isinstance(train.video, Sequences)):
        raise ParameterError("mixup_alpha needs features of one shape, and these are sequences; set it to 0")
    torch.manual_seed(derive_seed(params.seed, 0))
    model = build_model(**config)
    if start is not None:
        model.load_state_dict(start.checkpoint.tensors)
        run = assemble_run(params, train, val, config, model, batch_size)
        _restore_moments(run, start)
        return run
    if params.standardise:
        _set_scale(model.music_scaler, train.music)
        _set_scale(model.video_scaler, train.video)
    score_scale = fit_towers(model, train.music, train.video, halves=halve_groups(train, params.seed))
    run = assemble_run(params, train, val, config, model, batch_size)
    if score_scale is not None and isinstance(run.loss, ContrastiveLoss):
        run.loss.set_scale(score_scale)
    return run


def _restore_moments(run: Run, start: StartPoint) -> None:
    names = {name for name, part in run.model.named_parameters() if part.requires_grad}
    if not start.moments.keys() >= names:
        logger.info("the moments of Adam are not known: they and the count of steps start anew")
        return
    for name, part in run.model.named_parameters():
        first, second = (moment.to(part.device, copy=True) for moment in start.moments[name])
        step = torch.tensor(float(start.steps), device=part.device)
        run.optimiser.state[part] = {"step": step, "exp_avg": first, "exp_avg_sq": second}
    run.steps = run.first_step = start.steps
    logger.info("training goes on after step %d", start.steps)


def assemble_run(
    params: TrainParams,
    train: PairArrays,
    val: PairArrays | None,
    config: dict[str, Any],
    model: VMNet,
    batch_size: int,
) -> Run:
    """A run around a network."""
    device = choose_device(params.device)
    model.to(device)
    if params.population_variance:
        use_population_variance(model)
    share_batch_norms(model)
    loss = build_loss(**params.loss.model_dump(), embedding_dim=params.model.embedding_dim).to(device)
    return Run(
        params,
        config,
        train,
        val,
        device,
        model,
        model,
        loss,
        build_optimiser(model, loss, params),
        batch_size,
        encode_matches(train, params.positives_by),
        None if val is None else encode_matches(val, params.positives_by),
        encode_matches(train, "group") if params.mask_groups else None,
        None if params.average_decay is None else WeightAverage(model, params.average_decay),
    )


def connect(run: Run) -> None:
    """Share the network with the other processes, and compile it, as the settings say; all weights must be in place."""
    run.forward = share_model(run.model)
    if run.params.compile:
        run.forward = torch.compile(run.forward)


def choose_device(name: str) -> torch.device:
    """Device by name; `auto` is CUDA where there is one.

    Raises:
        TrainingError: CUDA was asked for and is not there.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise TrainingError("device 'cuda' was asked for, but torch finds no CUDA device; use 'cpu' or 'auto'")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return own_device(torch.device(name))


@contextmanager
def settled_torch(params: TrainParams) -> Iterator[None]:
    """Keep torch's global settings and random state as the caller had them."""
    n_threads = torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    memory: Any = torch.utils.deterministic
    fills_memory = memory.fill_uninitialized_memory
    with torch.random.fork_rng():
        try:
            if params.n_threads is not None:
                torch.set_num_threads(params.n_threads)
            # On CUDA this would need an environment variable set before start; equality is promised for the CPU.
            if choose_device(params.device).type == "cpu":
                torch.use_deterministic_algorithms(True, warn_only=True)
                # Writing every new tensor once more would cost a tenth of the time; nothing here reads one unwritten.
                memory.fill_uninitialized_memory = False
            yield
        finally:
            memory.fill_uninitialized_memory = fills_memory
            torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
            torch.set_num_threads(n_threads)


def _set_scale(scaler: nn.Module, features: FeatureArray) -> None:
    mean, std = measure_scale(features)
    scaler = cast("Standardise", scaler)
    scaler.mean.copy_(torch.from_numpy(mean))
    scaler.std.copy_(torch.from_numpy(std))
