"""The state a killed training continues from: one safetensors file, written atomically, no pickle.

Layout of the folder: `state.safetensors` (tensors, and the JSON part in its metadata, so that both change at once) and
`best-EPOCH.safetensors` (the best weights so far, written before the state that refers to it). Each has a digest of its
content: training never continues from weights that the disk has changed.
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from vmnet_pipeline.models.checkpoints import add_tensors, digest_checkpoint
from vmnet_pipeline.storage.atomic import remove_stale_temporaries, replace_atomically
from vmnet_pipeline.storage.checksummed import parse_json
from vmnet_pipeline.storage.paths import is_remote, local_copy
from vmnet_pipeline.storage.tensor_files import check_tensor_file
from vmnet_pipeline.training.data import digest_pairs
from vmnet_pipeline.types import EpochRecord, PairArrays

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import torch
    from torch import Tensor, nn

    from vmnet_pipeline.models.checkpoints import StartPoint
    from vmnet_pipeline.params import TrainParams

logger = logging.getLogger(__name__)

STATE_FILE = "state.safetensors"
FORMAT_VERSION = 2
# Settings that change neither the weights nor the history.
NEUTRAL_PARAMS = {"state_interval_s", "n_threads"}


@dataclass(frozen=True)
class TrainingState:
    """Where a training stands after a finished epoch.

    Attributes:
        run_digest: Identity of parameters and data, from `digest_run`.
        tensors: `model/`, `loss/`, `adam/` and perhaps `average/` tensors;
            after the last epoch only `model/`, the kept weights.
        history: One record per finished epoch.
        best_epoch: Epoch of the best validation so far; 0 before the first.
        finished: Whether the training is complete.
    """

    run_digest: str
    tensors: dict[str, Tensor]
    history: tuple[EpochRecord, ...]
    best_epoch: int
    finished: bool


def digest_run(params: TrainParams, train: PairArrays, val: PairArrays | None, start: StartPoint | None = None) -> str:
    """Hex sha256 over everything that determines the result: parameters, both sets of pairs, where it starts from."""
    content = {
        "format": FORMAT_VERSION,
        "params": params.model_dump(mode="json", exclude=NEUTRAL_PARAMS),
        "train": digest_pairs(train),
        "val": None if val is None else digest_pairs(val),
        **({} if start is None else {"start": [digest_checkpoint(start.checkpoint), start.steps]}),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


class StateFolder:
    """The state of one training in a folder, which is made if missing."""

    def __init__(self, path: Path, run_digest: str) -> None:
        """Name the folder, and the training that it has to belong to, by `digest_run`."""
        path.mkdir(parents=True, exist_ok=True)
        self._path, self._run_digest, self._saved_best = path, run_digest, 0

    def load(self) -> TrainingState | None:
        """See `load_state`."""
        return load_state(self._path, self._run_digest)

    def load_best(self, epoch: int) -> dict[str, Tensor] | None:
        """Best weights so far; empty before the first. See `load_best`."""
        self._saved_best = epoch
        return load_best(self._path, epoch, self._run_digest) if epoch else {}

    def save(
        self,
        tensors: dict[str, Tensor],
        history: Sequence[EpochRecord],
        best_epoch: int,
        best_tensors: dict[str, Tensor],
    ) -> None:
        """Write the state after an epoch; the best weights only when they have changed."""
        if best_epoch != self._saved_best:
            save_best(self._path, best_epoch, best_tensors, self._run_digest)
            self._saved_best = best_epoch
        save_state(self._path, TrainingState(self._run_digest, tensors, tuple(history), best_epoch, finished=False))

    def finish(self, tensors: dict[str, Tensor], history: Sequence[EpochRecord], kept_epoch: int) -> None:
        """Write the kept weights, on the CPU, as the end of the training."""
        kept = add_prefix(tensors, "model/")
        save_state(self._path, TrainingState(self._run_digest, kept, tuple(history), kept_epoch, finished=True))


def save_state(state_dir: Path, state: TrainingState) -> None:
    """Write the state in place of the one before; a reader or a kill finds the old one or the new one."""
    content = {
        "run_digest": state.run_digest,
        "history": [asdict(record) for record in state.history],
        "best_epoch": state.best_epoch,
        "finished": state.finished,
    }
    _write_tensors(state_dir / STATE_FILE, state.tensors, json.dumps(content))
    _remove_stale_best(state_dir, None if state.finished else state.best_epoch)


def save_best(state_dir: Path, epoch: int, tensors: dict[str, Tensor], run_digest: str) -> None:
    """Write the best weights so far; to be called before the `save_state` that names the epoch."""
    _write_tensors(_best_path(state_dir, epoch), tensors, run_digest)


def load_state(state_dir: Path, run_digest: str) -> TrainingState | None:
    """Read the state of an earlier run of the same parameters and data.

    Returns:
        None when there is no state, when it belongs to another run, or when it is damaged; the latter two are logged.
    """
    path = state_dir / STATE_FILE
    if not path.exists():
        return None
    try:
        state = _read_state(path)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        logger.warning("the training state %s is damaged (%s); training starts anew", path, error)
        return None
    if state.run_digest != run_digest:
        logger.info("the training state %s belongs to other parameters or data; training starts anew", path)
        return None
    return state


def load_best(state_dir: Path, epoch: int, run_digest: str) -> dict[str, Tensor] | None:
    """Read the best weights of an epoch; None (logged) if they are gone, damaged, or of another run."""
    path = _best_path(state_dir, epoch)
    try:
        tensors, owner = _read_tensors(path)
        if owner not in ("", run_digest):  # empty in files of earlier versions
            raise ValueError("they are of other parameters or data")
        return tensors
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        logger.warning("the best weights %s cannot be read (%s); training starts anew", path, error)
        return None


def _best_path(state_dir: Path, epoch: int) -> Path:
    return state_dir / f"best-{epoch}.safetensors"


def copy_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers of a module by name, as copies on the CPU."""
    return {name: tensor.detach().cpu().clone() for name, tensor in module.state_dict().items()}


def add_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The same tensors under longer names."""
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


def strip_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names start with `prefix`, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def capture_tensors(
    model: nn.Module, loss: nn.Module, optimiser: torch.optim.Optimizer, average: nn.Module | None = None
) -> dict[str, Tensor]:
    """All tensors that training continues from: weights and their average, the loss's own, the optimiser's moments."""
    moments = {
        f"{index}/{name}": value.detach().cpu().contiguous()
        for index, values in optimiser.state_dict()["state"].items()
        for name, value in values.items()
    }
    return {
        **add_prefix(copy_tensors(model), "model/"),
        **add_prefix(copy_tensors(loss), "loss/"),
        **add_prefix(moments, "adam/"),
        **({} if average is None else add_prefix(copy_tensors(average), "average/")),
    }


def restore_tensors(
    tensors: dict[str, Tensor],
    model: nn.Module,
    loss: nn.Module,
    optimiser: torch.optim.Optimizer,
    average: nn.Module | None = None,
) -> bool:
    """Inverse of `capture_tensors`; False (logged) if they do not fit, and then what is given may be half changed."""
    moments: dict[int, dict[str, Tensor]] = {}
    try:
        for key, tensor in strip_prefix(tensors, "adam/").items():
            index, name = key.split("/")
            moments.setdefault(int(index), {})[name] = tensor
        model.load_state_dict(strip_prefix(tensors, "model/"))
        loss.load_state_dict(strip_prefix(tensors, "loss/"))
        if average is not None:
            average.load_state_dict(strip_prefix(tensors, "average/"))
        optimiser.load_state_dict({"state": moments, "param_groups": optimiser.state_dict()["param_groups"]})
    except (RuntimeError, ValueError, KeyError) as error:
        logger.warning("the training state does not fit the network (%s); training starts anew", error)
        return False
    return True


def _read_state(path: Path) -> TrainingState:
    tensors, text = _read_tensors(path)
    content: dict[str, Any] = parse_json(text)
    history = tuple(EpochRecord(**record) for record in content["history"])
    if [record.epoch for record in history] != list(range(1, len(history) + 1)) or not history:
        raise ValueError("its history has gaps")
    return TrainingState(content["run_digest"], tensors, history, int(content["best_epoch"]), bool(content["finished"]))


def _write_tensors(path: Path, tensors: dict[str, Tensor], text: str) -> None:
    """Tensors and a text in one file, with a digest of both."""
    metadata = {"state": text, "checksum": _digest_content(tensors, text)}
    with replace_atomically(path) as temporary:
        save_file(tensors, temporary, metadata=metadata)
    if not is_remote(path):
        remove_stale_temporaries(path.parent, path)


def _read_tensors(path: Path) -> tuple[dict[str, Tensor], str]:
    """Inverse of `_write_tensors`.

    Raises:
        ValueError: They are not what was written.
    """
    with local_copy(path) as local:
        check_tensor_file(local)
        with safe_open(local, framework="pt") as file:
            metadata: dict[str, str] = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    text = metadata.get("state", "")
    if metadata.get("checksum", "") not in ("", _digest_content(tensors, text)):
        raise ValueError("its content does not match its checksum")
    return tensors, text


def _digest_content(tensors: dict[str, Tensor], text: str) -> str:
    digest = hashlib.sha256(text.encode())
    add_tensors(digest, tensors)
    return digest.hexdigest()


def _remove_stale_best(state_dir: Path, keep_epoch: int | None) -> None:
    kept = None if keep_epoch is None else _best_path(state_dir, keep_epoch)
    for path in state_dir.glob("best-*.safetensors"):
        if path != kept:
            path.unlink(missing_ok=True)
