"""The training loop: seeded, resumable after a kill, best epoch on validation kept."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from tqdm import tqdm

from vmnet_pipeline.errors import TrainingError
from vmnet_pipeline.models.canonical import fit_towers
from vmnet_pipeline.models.embedding import gather_rows
from vmnet_pipeline.models.losses import ContrastiveLoss, build_loss
from vmnet_pipeline.models.towers import Standardise, VMNet, build_model, choose_music_tower
from vmnet_pipeline.records import EpochRecord, PairArrays
from vmnet_pipeline.training.data import (
    check_pairs,
    check_same_shapes,
    derive_seed,
    encode_matches,
    fit_batch_size,
    halve_groups,
    measure_scale,
    order_epoch,
)
from vmnet_pipeline.training.optimise import WeightAverage, add_noise, build_optimiser, learning_rate, mix_pairs
from vmnet_pipeline.training.state import (
    TrainingState,
    add_prefix,
    best_path,
    capture_tensors,
    copy_tensors,
    digest_run,
    load_best,
    load_state,
    restore_tensors,
    save_best,
    save_state,
    strip_prefix,
)
from vmnet_pipeline.training.validation import evaluate_model, make_loss_inputs

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from vmnet_pipeline.params import TrainParams

logger = logging.getLogger(__name__)

EpochCallback = Callable[[EpochRecord], None]


@dataclass(frozen=True)
class TrainingResult:
    """A trained network and how it came about.

    Attributes:
        tensors: The kept weights, on the CPU, by name.
        model_config: Arguments of `models.towers.build_model`.
        history: One record per epoch, those before an interruption included.
        best_epoch: Epoch whose weights are kept.
        metrics: Validation metrics of that epoch; empty without validation.
        resumed_from: Epochs that an earlier, interrupted run had done; 0 for a fresh run.
    """

    tensors: dict[str, Tensor]
    model_config: dict[str, Any]
    history: tuple[EpochRecord, ...]
    best_epoch: int
    metrics: dict[str, float]
    resumed_from: int

    def build(self) -> VMNet:
        """The network with the kept weights, in inference mode."""
        with torch.random.fork_rng(devices=[]):
            model = build_model(**self.model_config)
        model.load_state_dict(self.tensors)
        return model.eval()


@dataclass
class _Run:
    """Everything that moves while training."""

    params: TrainParams
    train: PairArrays
    val: PairArrays | None
    device: torch.device
    model: VMNet
    loss: nn.Module
    optimiser: torch.optim.Adam
    batch_size: int
    train_codes: np.ndarray
    val_codes: np.ndarray | None
    groups: np.ndarray | None
    average: WeightAverage | None
    steps: int = 0
    history: list[EpochRecord] = field(default_factory=list)
    best_epoch: int = 0
    best_tensors: dict[str, Tensor] = field(default_factory=dict)

    @property
    def kept_model(self) -> VMNet:
        """The network that is evaluated and kept: the average of weights where there is one."""
        return self.model if self.average is None else self.average.model


def train_model(
    train: PairArrays,
    val: PairArrays | None,
    params: TrainParams,
    *,
    state_dir: Path,
    on_epoch: EpochCallback | None = None,
    progress: bool = True,
) -> TrainingResult:
    """Train a network on pairs; a rerun after a kill continues from the last finished epoch.

    On the CPU the resumed run gives the same weights, bit for bit, as one that was never disturbed: order and dropout
    of an epoch depend only on seed and epoch. A finished run whose state is still in `state_dir` is returned without
    training (`training.state.clear_state` forgets it); a state of other parameters or data is not used and is replaced.

    Args:
        train: Training pairs, at least two.
        val: Validation pairs; with fewer than two of them the last epoch is kept, with a warning.
        params: Settings.
        state_dir: Folder of the state; made if missing.
        on_epoch: Called after each epoch done here, once its state is safe; not for epochs of an interrupted run.
        progress: Show a bar on a terminal; sparse log lines otherwise.

    Returns:
        The kept weights and the history.

    Raises:
        TrainingError: The pairs cannot be trained on, or the loss is no longer finite.
        ParameterError: A tower is unknown or does not fit the features.
    """
    check_pairs(train, "training")
    val = _usable_validation(train, val)
    state_dir.mkdir(parents=True, exist_ok=True)
    run_digest = digest_run(params, train, val)
    config = model_config_of(params, train)
    state = load_state(state_dir, run_digest)
    if state is not None and state.finished:
        logger.info("already trained with these parameters and data: %d epochs", len(state.history))
        return _make_result(config, strip_prefix(state.tensors, "model/"), state.history, state.best_epoch, 0)
    with _settled_torch(params):
        run = _start_run(params, train, val, config)
        if state is not None and not _resume(run, state, state_dir):
            run = _start_run(params, train, val, config)
        resumed_from = len(run.history)
        _run_epochs(run, run_digest, state_dir, on_epoch, progress)
    return _finish(run, run_digest, state_dir, config, resumed_from)


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
    }


def _usable_validation(train: PairArrays, val: PairArrays | None) -> PairArrays | None:
    if val is None or len(val) < 2:
        logger.warning(
            "there are %d validation pairs, and at least 2 are needed to choose the best epoch; the last one is kept",
            0 if val is None else len(val),
        )
        return None
    check_pairs(val, "validation")
    check_same_shapes(train, val)
    return val


@contextmanager
def _settled_torch(params: TrainParams) -> Iterator[None]:
    """Keep torch's global settings and random state as the caller had them."""
    n_threads = torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    with torch.random.fork_rng():
        try:
            if params.n_threads is not None:
                torch.set_num_threads(params.n_threads)
            # On CUDA this would need an environment variable set before start; equality is promised for the CPU.
            if choose_device(params.device).type == "cpu":
                torch.use_deterministic_algorithms(True, warn_only=True)
            yield
        finally:
            torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
            torch.set_num_threads(n_threads)


def choose_device(name: str) -> torch.device:
    """Device by name; `auto` is CUDA where there is one.

    Raises:
        TrainingError: CUDA was asked for and is not there.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise TrainingError("device 'cuda' was asked for, but torch finds no CUDA device; use 'cpu' or 'auto'")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def _start_run(params: TrainParams, train: PairArrays, val: PairArrays | None, config: dict[str, Any]) -> _Run:
    device = choose_device(params.device)
    batch_size = fit_batch_size(params.batch_size, len(train), shuffle=params.shuffle)
    torch.manual_seed(derive_seed(params.seed, 0))
    model = build_model(**config)
    if params.standardise:
        _set_scale(model.music_scaler, train.music)
        _set_scale(model.video_scaler, train.video)
    score_scale = fit_towers(model, train.music, train.video, halves=halve_groups(train, params.seed))
    model.to(device)
    loss = build_loss(**params.loss.model_dump(), embedding_dim=params.model.embedding_dim).to(device)
    if score_scale is not None and isinstance(loss, ContrastiveLoss):
        loss.set_scale(score_scale)
    return _Run(
        params,
        train,
        val,
        device,
        model,
        loss,
        build_optimiser(model, loss, params),
        batch_size,
        encode_matches(train, params.positives_by),
        None if val is None else encode_matches(val, params.positives_by),
        encode_matches(train, "group") if params.mask_groups else None,
        None if params.average_decay is None else WeightAverage(model, params.average_decay),
    )


def _set_scale(scaler: nn.Module, array: np.ndarray) -> None:
    mean, std = measure_scale(array)
    scaler = cast("Standardise", scaler)
    scaler.mean.copy_(torch.from_numpy(mean))
    scaler.std.copy_(torch.from_numpy(std))


def _run_epochs(run: _Run, run_digest: str, state_dir: Path, on_epoch: EpochCallback | None, progress: bool) -> None:
    epochs, done = run.params.epochs, len(run.history)
    saved_at = time.monotonic()
    shows_bar = progress and sys.stderr.isatty()
    with tqdm(total=epochs, initial=done, desc="train", unit="epoch", disable=not shows_bar) as bar:
        for epoch in range(done + 1, epochs + 1):
            record = _run_epoch(run, epoch)
            run.history.append(record)
            if _is_best(run, record):
                run.best_epoch, run.best_tensors = epoch, copy_tensors(run.kept_model)
            stops = _is_out_of_patience(run)
            if epoch < epochs and not stops and time.monotonic() - saved_at >= run.params.state_interval_s:
                _save_progress(run, run_digest, state_dir)
                saved_at = time.monotonic()
            bar.update()
            bar.set_postfix_str(_describe(record), refresh=False)
            if progress and not shows_bar and (epoch == epochs or epoch % max(1, epochs // 10) == 0):
                logger.info("epoch %d of %d: %s", epoch, epochs, _describe(record))
            if on_epoch is not None:
                on_epoch(record)
            if stops:
                logger.info("stopped after epoch %d: no better validation since epoch %d", epoch, run.best_epoch)
                break


def _describe(record: EpochRecord) -> str:
    val = f", validation MRR {record.val['mrr']:.3f}" if record.val else ""
    return f"loss {record.losses['total']:.3f}{val}"


def _run_epoch(run: _Run, epoch: int) -> EpochRecord:
    start = time.perf_counter()
    params = run.params
    torch.manual_seed(derive_seed(params.seed, epoch))
    run.model.train()
    run.loss.train()
    sums: dict[str, float] = {}
    norms = []
    for rows in order_epoch(len(run.train), run.batch_size, epoch, seed=params.seed, shuffle=params.shuffle):
        terms, norm = _run_step(run, rows, epoch)
        norms.append(norm)
        for name, value in terms.items():
            sums[name] = sums.get(name, 0.0) + value
    losses = {name: value / len(norms) for name, value in sums.items()}
    lr = learning_rate(params, run.steps - 1, len(norms))
    val = _evaluate(run, epoch)
    return EpochRecord(epoch, run.steps, losses, sum(norms) / len(norms), lr, val, time.perf_counter() - start)


def _run_step(run: _Run, rows: np.ndarray, epoch: int) -> tuple[dict[str, float], float]:
    """One optimiser step on one batch; gives the loss terms and the gradient norm."""
    music = gather_rows(run.train.music, rows).to(run.device)
    video = gather_rows(run.train.video, rows).to(run.device)
    codes = torch.from_numpy(run.train_codes[rows]).to(run.device)
    groups = None if run.groups is None else torch.from_numpy(run.groups[rows]).to(run.device)
    terms = run.loss(make_loss_inputs(run.model(*_augment(run, music, video)), codes, groups))
    if not torch.isfinite(terms["total"]):
        raise TrainingError(_explain_bad_loss(run, rows, epoch, music, video))
    for group in run.optimiser.param_groups:
        group["lr"] = learning_rate(run.params, run.steps, len(run.train) // run.batch_size)
    run.optimiser.zero_grad(set_to_none=True)
    terms["total"].backward()
    norm = nn.utils.get_total_norm([p.grad for p in run.model.parameters() if p.grad is not None])
    run.optimiser.step()
    run.steps += 1
    if run.average is not None:
        run.average.update(run.model, run.steps)
    return {name: float(value.detach()) for name, value in terms.items()}, float(norm)


def _augment(run: _Run, music: Tensor, video: Tensor) -> tuple[Tensor, Tensor]:
    """Features as the network sees them in training; the noise is measured in deviations where those are known."""
    params = run.params
    if params.mixup_alpha:
        music, video = mix_pairs(music, video, params.mixup_alpha)
    if params.feature_noise:
        stds = [getattr(scaler, "std", 1.0) for scaler in (run.model.music_scaler, run.model.video_scaler)]
        music = add_noise(music, params.feature_noise * stds[0])
        video = add_noise(video, params.feature_noise * stds[1])
    return music, video


def _explain_bad_loss(run: _Run, rows: np.ndarray, epoch: int, music: Tensor, video: Tensor) -> str:
    place = f"the loss is not finite in epoch {epoch}, step {run.steps + 1}"
    finite = torch.isfinite(music.flatten(1)).all(dim=1) & torch.isfinite(video.flatten(1)).all(dim=1)
    bad = [run.train.ids[row] for row in rows[~finite.cpu().numpy()]]
    if bad:
        more = "" if len(bad) <= 5 else f" and {len(bad) - 5} more"
        return f"{place}: features of {', '.join(bad[:5])}{more} hold NaN or infinity; extract these items again"
    return f"{place}, though all features are; use a smaller learning_rate (now {run.params.learning_rate:g})"


def _evaluate(run: _Run, epoch: int) -> dict[str, float]:
    is_due = epoch % run.params.eval_every == 0 or epoch == run.params.epochs
    if run.val is None or run.val_codes is None or not is_due:
        return {}
    return evaluate_model(run.kept_model, run.loss, run.val, run.val_codes, run.batch_size)


def _score(record: EpochRecord) -> tuple[float, float]:
    """What the best epoch is chosen by, larger is better: MRR of both directions, then the lower loss."""
    return (record.val["mrr"], -record.val["loss"])


def _is_best(run: _Run, record: EpochRecord) -> bool:
    if run.params.keep == "last" or not record.val:
        return False
    return run.best_epoch == 0 or _score(record) > _score(run.history[run.best_epoch - 1])


def _is_out_of_patience(run: _Run) -> bool:
    if run.params.patience is None or run.best_epoch == 0:
        return False
    n_since_best = sum(bool(record.val) for record in run.history[run.best_epoch :])
    return n_since_best >= run.params.patience


def _average_of(run: _Run) -> VMNet | None:
    return None if run.average is None else run.average.model


def _save_progress(run: _Run, run_digest: str, state_dir: Path) -> None:
    if run.best_epoch and not best_path(state_dir, run.best_epoch).exists():
        save_best(state_dir, run.best_epoch, run.best_tensors)
    tensors = capture_tensors(run.model, run.loss, run.optimiser, _average_of(run))
    save_state(state_dir, TrainingState(run_digest, tensors, tuple(run.history), run.best_epoch, finished=False))


def _resume(run: _Run, state: TrainingState, state_dir: Path) -> bool:
    """Put a fresh run where the state stands; False if the state turns out not to fit."""
    best = load_best(state_dir, state.best_epoch) if state.best_epoch else {}
    if best is None or not restore_tensors(state.tensors, run.model, run.loss, run.optimiser, _average_of(run)):
        return False
    run.best_epoch, run.best_tensors = state.best_epoch, best
    run.history = list(state.history)
    run.steps = state.history[-1].steps
    logger.info("training continues after epoch %d", len(run.history))
    return True


def _finish(run: _Run, run_digest: str, state_dir: Path, config: dict[str, Any], resumed_from: int) -> TrainingResult:
    keeps_best = run.best_epoch > 0
    tensors = run.best_tensors if keeps_best else copy_tensors(run.kept_model)
    kept_epoch = run.best_epoch if keeps_best else len(run.history)
    history = tuple(run.history)
    save_state(state_dir, TrainingState(run_digest, add_prefix(tensors, "model/"), history, kept_epoch, finished=True))
    return _make_result(config, tensors, history, kept_epoch, resumed_from)


def _make_result(
    config: dict[str, Any],
    tensors: dict[str, Tensor],
    history: tuple[EpochRecord, ...],
    kept_epoch: int,
    resumed_from: int,
) -> TrainingResult:
    metrics = dict(history[kept_epoch - 1].val)
    return TrainingResult(tensors, config, history, kept_epoch, metrics, resumed_from)
