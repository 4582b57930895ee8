"""Train an ensemble: networks of several seeds, each trained and resumed on its own, joined at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch

from vmnet_pipeline.evaluation.metrics import measure_retrieval
from vmnet_pipeline.models.embed import embed_arrays
from vmnet_pipeline.models.ensemble import join_tensors
from vmnet_pipeline.training import TrainingResult, train_model
from vmnet_pipeline.training.data import derive_seed, encode_matches

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from vmnet_pipeline.models.checkpoints import StartPoint
    from vmnet_pipeline.params import TrainParams
    from vmnet_pipeline.training.trainer import StepCallback
    from vmnet_pipeline.types import EpochRecord, PairArrays


class EpochLog(Protocol):
    """Destination of the curves of one training."""

    def add(self, record: EpochRecord) -> None:
        """Log one epoch as soon as it is done."""
        ...

    def finish(self, history: Sequence[EpochRecord]) -> None:
        """Log the whole history, epochs of interrupted runs included."""
        ...


def member_params(params: TrainParams) -> list[TrainParams]:
    """Derive the settings of each member; the first keeps the seed, so that more members can be added later."""
    seeds = [params.seed, *(derive_seed(params.seed, number) for number in range(1, params.n_members))]
    return [params.model_copy(update={"seed": seed, "n_members": 1}) for seed in seeds]


def train_members(
    train: PairArrays,
    val: PairArrays | None,
    params: TrainParams,
    *,
    state_dir: Path,
    open_log: Callable[[int, TrainParams], AbstractContextManager[EpochLog]],
    watch: Callable[[int], StepCallback | None] = lambda _: None,
    start: StartPoint | None = None,
) -> list[TrainingResult]:
    """Train `params.n_members` networks in turn; a rerun after a kill continues. Raises as `train_model`."""
    results = []
    for number, member in enumerate(member_params(params)):
        with open_log(number, member) as log:
            folder = state_dir / f"member_{number + 1}" if number else state_dir  # as of a network alone
            result = train_model(
                train, val, member, state_dir=folder, on_epoch=log.add, on_step=watch(number), start=start
            )
            log.finish(result.history)
        results.append(result)
    return results


def join_results(results: Sequence[TrainingResult], val: PairArrays | None, params: TrainParams) -> TrainingResult:
    """Join trained members: their weights, and histories one after the other; best epoch 0, as each has its own."""
    if len(results) == 1:
        return results[0]
    joint = TrainingResult(
        tensors=join_tensors([result.tensors for result in results]),
        model_config={**results[0].model_config, "n_members": len(results)},
        history=tuple(record for result in results for record in result.history),
        best_epoch=0,
        metrics={},
        resumed_from=0,
    )
    if val is not None and len(val) >= 2:
        joint.metrics.update(_measure(joint, val, params))
    return joint


def _measure(result: TrainingResult, val: PairArrays, params: TrainParams) -> dict[str, float]:
    model = result.build()
    music = torch.from_numpy(embed_arrays(model, music=val.music))
    video = torch.from_numpy(embed_arrays(model, video=val.video))
    codes = torch.from_numpy(encode_matches(val, params.positives_by))
    return measure_retrieval(music, video, codes)
