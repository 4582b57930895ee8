"""Make a trainer from parameters and pairs, and run it (`train_model`). Parameters go no further than here."""

from __future__ import annotations

import logging
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from vmnet_pipeline.errors import ParameterError, TrainingError
from vmnet_pipeline.models.cca_tower import fit_towers
from vmnet_pipeline.models.checkpoints import check_shapes
from vmnet_pipeline.models.factory import build_model, choose_music_tower
from vmnet_pipeline.models.kernel_tower import N_LANDMARKS, fit_kernel_towers
from vmnet_pipeline.models.losses import ContrastiveLoss, build_loss
from vmnet_pipeline.models.reduced_cca import list_ranks
from vmnet_pipeline.models.reduced_tower import fit_reduced_towers
from vmnet_pipeline.params.training import CLOSED_FORM_TOWERS
from vmnet_pipeline.training import distributed
from vmnet_pipeline.training.batch_norm import use_population_variance
from vmnet_pipeline.training.batches import Augmentation, TrainBatches
from vmnet_pipeline.training.data import (
    check_pairs,
    check_same_shapes,
    derive_seed,
    encode_matches,
    fit_batch_size,
    halve_groups,
    measure_scale,
)
from vmnet_pipeline.training.fusion import spread_weights, weigh_parts
from vmnet_pipeline.training.optim import Schedule, WeightAverage, build_optimiser
from vmnet_pipeline.training.precision import fast_products, uses_bf16
from vmnet_pipeline.training.state import StateFolder, copy_tensors, digest_run, strip_prefix
from vmnet_pipeline.training.trainer import Plan, Trainer, TrainingResult
from vmnet_pipeline.training.validation import measure_network, require_finite
from vmnet_pipeline.training.whitening import set_whitening, settle_whitening
from vmnet_pipeline.types import SIDES, EpochRecord, FeaturePart, PairArrays, Sequences, Side

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from vmnet_pipeline.models.checkpoints import StartPoint
    from vmnet_pipeline.models.two_tower import Standardise, VMNet
    from vmnet_pipeline.params import TrainParams
    from vmnet_pipeline.training.trainer import EpochCallback, StepCallback
    from vmnet_pipeline.types import FeatureArray

logger = logging.getLogger(__name__)


def train_model(
    train: PairArrays,
    val: PairArrays | None,
    params: TrainParams,
    *,
    state_dir: Path,
    on_epoch: EpochCallback | None = None,
    on_step: StepCallback | None = None,
    start: StartPoint | None = None,
    progress: bool = True,
) -> TrainingResult:
    """Train a network on pairs; a rerun after a kill continues from the last finished epoch.

    On the CPU the resumed run gives the same weights, bit for bit, as one that was never disturbed: order and dropout
    of an epoch depend only on seed and epoch. A finished run whose state is still in `state_dir` is returned without
    training; a state of other parameters or data is not used and is replaced.

    With several processes (see `training.distributed`) the leading one calls this, the others `run_follower`.

    Args:
        train: Training pairs, at least two.
        val: Validation pairs; with fewer than two of them the last epoch is kept, with a warning.
        params: Settings.
        state_dir: Folder of the state; made if missing.
        on_epoch: Called after each epoch done here, once its state is safe; not for epochs of an interrupted run.
        on_step: Called after each step done here; it must leave the network as it is.
        start: What `params.start_from` names, read.
        progress: Show a bar on a terminal; sparse log lines otherwise.

    Returns:
        The kept weights and the history.

    Raises:
        TrainingError: The pairs cannot be trained on, or the loss on training or validation pairs is not finite.
        ParameterError: A tower is unknown or does not fit the features.
        CheckpointError: `start` takes other features.
    """
    if params.start_from is not None and start is None:
        raise TrainingError("start_from is for `kedro run --pipeline train`; leave it out here")
    check_pairs(train, "training")
    val = _usable_validation(train, val, needs_it=params.epochs > 0 and not params.model.is_closed_form)
    train = train if start else weigh_parts(train, val, params)
    params = params if start else settle_whitening(train, params)
    config = model_config_of(params, train) if start is None else config_of_start(params, train, start)
    states = StateFolder(state_dir, digest_run(params, train, val, start))
    state = states.load()
    if state is not None and state.finished:
        logger.info("already trained with these parameters and data: %d epochs", len(state.history))
        metrics = state.metrics or dict(state.history[state.best_epoch - 1].val if state.best_epoch else {})
        tensors = strip_prefix(state.tensors, "model/")
        return TrainingResult(tensors, config, state.history, state.best_epoch, metrics, 0)
    if params.model.is_closed_form or (params.epochs == 0 and start is None):
        result = fit_closed_form(train, params)
        if val is not None:
            result.metrics.update(measure_network(result.build(), val, params.positives_by))
            result = replace(result, history=(replace(result.history[0], val=dict(result.metrics)),))
        states.finish(result.tensors, result.history, result.best_epoch, result.metrics)
        return result
    with torch_settings(params):
        trainer = make_trainer(params, train, val, config, start)
        if state is not None:
            best = states.load_best(state.best_epoch)
            if best is None or not trainer.resume(state, best):
                trainer = make_trainer(params, train, val, config, start)
        resumed_from = len(trainer.history)
        if distributed.n_processes() > 1:
            distributed.broadcast(_describe_job(params, train, trainer))
        trainer.connect(compiles=params.compile)
        trainer.fit(states, on_epoch=on_epoch, on_step=on_step, progress=progress)
    tensors, epoch = trainer.take_kept()
    history = tuple(trainer.history)
    metrics = dict(history[epoch - 1].val if epoch else trainer.start_metrics)
    if not epoch and metrics and history:
        logger.info("no epoch was better on validation than the start, which is kept")
    states.finish(tensors, history, epoch, metrics)
    return TrainingResult(tensors, config, history, epoch, metrics, resumed_from)


def fit_closed_form(train: PairArrays, params: TrainParams) -> TrainingResult:
    """Fit canonical or kernel towers to pairs; no step is done.

    Returns:
        A history of one record; its loss is minus the mean reciprocal rank of the cross-validation, if there was one.

    Raises:
        ParameterError: The towers have no closed form, or do not fit the features.
        TrainingError: A feature is not finite; the message names the items.
    """
    started, config = time.perf_counter(), model_config_of(params, train)
    require_finite(train)
    with torch_settings(params):
        torch.manual_seed(derive_seed((params.seed, 0)))
        model = build_model(**config).eval()
        if params.standardise:
            _set_scales(model, train, params)
        losses = {"total": 0.0}
        if params.model.music_tower == "reduced":
            widths = ([part.width for part in _list_parts(train, side)] for side in SIDES)
            fit_reduced_towers(model, train.music, train.video, *widths)
        elif params.model.is_closed_form:
            groups, options = encode_matches(train, "group"), params.kernel.model_dump()
            fit = fit_kernel_towers(model, train.music, train.video, groups, seed=params.seed, **options)
            losses = {"total": -(fit.score or 0.0), "width": fit.settings.width, "ridge": fit.settings.ridge}
        elif fit_towers(model, train.music, train.video, halves=halve_groups(train, params.seed)) is None:
            raise ParameterError(
                "epochs=0 keeps the start, and these towers start at random; give start_from or epochs"
            )
    record = EpochRecord(1, 0, losses, 0.0, 0.0, {}, time.perf_counter() - started)
    return TrainingResult(copy_tensors(model), config, (record,), 1, {}, 0)


@dataclass(frozen=True)
class _Job:
    """A training as followers receive it; `tensors` are those of `Trainer.capture`."""

    params: TrainParams
    train: PairArrays
    config: dict[str, Any]
    tensors: dict[str, Tensor]
    batch_size: int
    steps: int
    first_step: int
    n_epochs_done: int

    @contextmanager
    def join(self) -> Iterator[tuple[Callable[[int], object], int]]:
        """See `distributed.FollowerJob`."""
        with torch_settings(self.params):
            model = build_model(**self.config)
            trainer = assemble_trainer(
                self.params, self.train, None, self.config, model, self.batch_size, self.first_step
            )
            trainer.restore(self.tensors)
            trainer.steps = self.steps
            trainer.connect(compiles=self.params.compile)
            yield trainer.train_epoch, self.n_epochs_done + 1


def _describe_job(params: TrainParams, train: PairArrays, trainer: Trainer) -> _Job:
    done = (trainer.steps, trainer.schedule.first_step, len(trainer.history))
    return _Job(params, train, trainer.model_config, trainer.capture(), trainer.batches.batch_size, *done)


def _usable_validation(train: PairArrays, val: PairArrays | None, *, needs_it: bool) -> PairArrays | None:
    if val is None or len(val) < 2:
        if needs_it:
            n = 0 if val is None else len(val)
            logger.warning(
                "choosing the best epoch needs at least 2 validation pairs, not %d; the last epoch is kept", n
            )
        return None
    check_pairs(val, "validation")
    check_same_shapes(train, val)
    return val


def model_config_of(params: TrainParams, pairs: PairArrays) -> dict[str, Any]:
    """Choose the arguments of `build_model` for these parameters and feature shapes; resolves `auto`."""
    music_shape = [int(size) for size in pairs.music.shape[1:]]
    model = params.model
    music_tower = choose_music_tower(music_shape) if model.music_tower == "auto" else model.music_tower
    # Only what is not as published: checkpoints of published towers do not name it.
    depth = {"music_layers": model.music_layers, "video_layers": model.video_layers, "linear": model.linear or None}
    return {
        "music_tower": music_tower,
        "video_tower": music_tower if model.video_tower == "auto" else model.video_tower,
        "music_shape": music_shape,
        "video_shape": [int(size) for size in pairs.video.shape[1:]],
        "embedding_dim": model.embedding_dim,
        "dropout": model.dropout,
        "standardise": params.standardise,
        **{name: value for name, value in depth.items() if value is not None},
        **_fitted_config(music_tower, pairs),
        **({"whiten": whitened} if (whitened := params.whiten.list_sides()) and params.standardise else {}),
    }


def _fitted_config(tower: str, pairs: PairArrays) -> dict[str, Any]:
    """Arguments that say how large towers in closed form are on these pairs."""
    if tower == "kernel":
        return {"n_landmarks": min(len(pairs), N_LANDMARKS)}
    if tower == "reduced":
        ranks = list_ranks(*(len(_list_parts(pairs, side)) for side in SIDES))
        return {"ranks": ranks, "embedding_dim": sum(ranks)}
    return {}


def _list_parts(pairs: PairArrays, side: Side) -> tuple[FeaturePart, ...]:
    """The backends of a side, also where it has one."""
    return pairs.parts.get(side) or (FeaturePart(side, getattr(pairs, side).shape[-1]),)


def config_of_start(params: TrainParams, pairs: PairArrays, start: StartPoint) -> dict[str, Any]:
    """Choose the arguments of `build_model` to continue from a checkpoint: its own, but the dropout of the settings.

    Raises:
        CheckpointError: It takes features of another shape.
        ParameterError: It is several networks in one.
    """
    config = start.checkpoint.model_config
    if config.get("n_members", 1) > 1:
        raise ParameterError("start_from is an ensemble, which cannot be trained on; take a checkpoint of one network")
    if config["music_tower"] in CLOSED_FORM_TOWERS:
        raise ParameterError(
            f"start_from has towers {config['music_tower']!r}, which are fitted to all pairs at once and never trained "
            "on; leave it out, or give train.protocol=best, which keeps it where it is the better one"
        )
    check_shapes(start.checkpoint, pairs.music.shape[1:], pairs.video.shape[1:])
    return {**config, "dropout": params.model.dropout}


def make_trainer(
    params: TrainParams,
    train: PairArrays,
    val: PairArrays | None,
    config: dict[str, Any],
    start: StartPoint | None = None,
) -> Trainer:
    """Make a trainer before its first step: fitted to the training pairs, or as a checkpoint has it.

    Raises:
        TrainingError: There are too few pairs, or more processes than pairs in a batch.
        ParameterError: A tower is unknown, or a setting does not fit the features.
    """
    batch_size = distributed.fit_share(fit_batch_size(params.batch_size, len(train), shuffle=params.shuffle))
    if params.mixup_alpha and (isinstance(train.music, Sequences) or isinstance(train.video, Sequences)):
        raise ParameterError("mixup_alpha needs features of one shape, and these are sequences; set it to 0")
    torch.manual_seed(derive_seed((params.seed, 0)))
    model = build_model(**config)
    if start is not None:
        model.load_state_dict(start.checkpoint.tensors)
        knows_moments = start.moments.keys() >= {name for name, part in model.named_parameters() if part.requires_grad}
        first_step = start.steps if knows_moments else 0
        trainer = assemble_trainer(params, train, val, config, model, batch_size, first_step)
        if knows_moments:
            _restore_moments(trainer, start)
        else:
            logger.info("Adam's moments are unknown: they and the count of steps start at 0")
        trainer.keep_start()
        return trainer
    if params.standardise:
        _set_scales(model, train, params)
    score_scale = fit_towers(model, train.music, train.video, halves=halve_groups(train, params.seed))
    trainer = assemble_trainer(params, train, val, config, model, batch_size)
    if score_scale is not None:
        if isinstance(trainer.loss, ContrastiveLoss):
            trainer.loss.set_scale(score_scale)
        trainer.keep_start()
    return trainer


def _restore_moments(trainer: Trainer, start: StartPoint) -> None:
    for name, part in trainer.model.named_parameters():
        first, second = (moment.to(part.device, copy=True) for moment in start.moments[name])
        step = torch.tensor(float(start.steps), device=part.device)
        trainer.optimiser.state[part] = {"step": step, "exp_avg": first, "exp_avg_sq": second}
    logger.info("training continues after step %d", start.steps)


def assemble_trainer(
    params: TrainParams,
    train: PairArrays,
    val: PairArrays | None,
    config: dict[str, Any],
    model: VMNet,
    batch_size: int,
    first_step: int = 0,
) -> Trainer:
    """Make the trainer of a network."""
    device = choose_device(params.device)
    model.to(device)
    if params.population_variance:
        use_population_variance(model)
    distributed.share_batch_norms(model)
    loss = build_loss(**params.loss.model_dump(), embedding_dim=params.model.embedding_dim).to(device)
    codes, groups = encode_matches(train, params.positives_by), encode_matches(train, "group")
    order: dict[str, Any] = {"batch_size": batch_size, "seed": params.seed, "shuffle": params.shuffle}
    batches = TrainBatches(train, codes, groups if params.mask_groups else None, **order, device=device)
    stds = [getattr(scaler, "std", 1.0) for scaler in (model.music_scaler, model.video_scaler)]
    rates = {"learning_rate": params.learning_rate, "epsilon": params.adam_epsilon}
    return Trainer(
        model,
        config,
        loss,
        build_optimiser(model, loss, **rates, weight_decay=params.weight_decay),
        make_schedule(params, len(batches), first_step),
        batches,
        Augmentation(params.mixup_alpha, params.feature_noise, *stds),
        Plan(
            params.epochs,
            params.seed,
            params.keep,
            params.patience,
            params.eval_every,
            params.state_interval_s,
            uses_bf16(params, device),
        ),
        validation=None if val is None else (val, encode_matches(val, params.positives_by)),
        average=None if params.average_decay is None else WeightAverage(model, params.average_decay),
    )


def make_schedule(params: TrainParams, steps_per_epoch: int, first_step: int = 0) -> Schedule:
    """Make the schedule that the parameters describe."""
    return Schedule(
        params.learning_rate,
        params.lr_schedule,
        params.warmup_epochs * steps_per_epoch,
        params.epochs * steps_per_epoch,
        params.lr_decay,
        params.lr_decay_steps,
        first_step,
        params.adam_epsilon,
        params.epsilon_before_correction,
    )


def choose_device(name: str) -> torch.device:
    """Choose a device by name; `auto` is CUDA if available.

    Raises:
        TrainingError: CUDA was requested but is not available.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise TrainingError("device 'cuda' was requested, but torch finds no CUDA device; use 'cpu' or 'auto'")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return distributed.own_device(torch.device(name))


@contextmanager
def torch_settings(params: TrainParams) -> Iterator[None]:
    """Set torch's threads and determinism in the block; afterwards restore them and its random state."""
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
                with fast_products():
                    yield
            else:
                yield
        finally:
            memory.fill_uninitialized_memory = fills_memory
            torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
            torch.set_num_threads(n_threads)


def _set_scales(model: VMNet, train: PairArrays, params: TrainParams) -> None:
    if params.whiten.list_sides():
        require_finite(train)
    for side, scaler in (("music", model.music_scaler), ("video", model.video_scaler)):
        features: FeatureArray = getattr(train, side)
        _set_scale(scaler, features, train.parts.get(cast("Side", side)))
        set_whitening(scaler, features, getattr(params.whiten, side) or 0.0)


def _set_scale(scaler: nn.Module, features: FeatureArray, parts: Sequence[FeaturePart] | None) -> None:
    mean, std = measure_scale(features)
    if parts:
        std = std / spread_weights(parts)
    scaler = cast("Standardise", scaler)
    scaler.mean.copy_(torch.from_numpy(mean))
    scaler.std.copy_(torch.from_numpy(std))
