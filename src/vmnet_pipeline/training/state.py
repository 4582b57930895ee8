"""The state a killed training continues from: one safetensors file, written atomically, no pickle.

Layout of the folder: `state.safetensors` (tensors, and the JSON part in its metadata, so that both change at once) and
`best-EPOCH.safetensors` (the best weights so far, written before the state that refers to it). Each has a digest of its
content: training never continues from weights that the disk has changed.
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from vmnet_pipeline.models.checkpoints import add_tensors, digest_checkpoint, list_parts
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
    """State of a training after a finished epoch.

    Attributes:
        run_digest: Identity of parameters and data, from `digest_run`.
        tensors: `model/`, `loss/`, `adam/` and perhaps `average/` tensors;
            after the last epoch only `model/`, the kept weights.
        history: One record per finished epoch.
        best_epoch: Epoch of the best validation so far; 0 before the first.
        finished: Whether the training is complete.
        metrics: Validation metrics of the kept weights, once it is.
    """

    run_digest: str
    tensors: dict[str, Tensor]
    history: tuple[EpochRecord, ...]
    best_epoch: int
    finished: bool
    metrics: dict[str, float] = field(default_factory=dict)


def digest_run(params: TrainParams, train: PairArrays, val: PairArrays | None, start: StartPoint | None = None) -> str:
    """Hex sha256 over everything that determines the result: parameters, both sets of pairs, where it starts from."""
    content = {
        "format": FORMAT_VERSION,
        "params": params.model_dump(mode="json", exclude=NEUTRAL_PARAMS),
        "train": digest_pairs(train),
        "val": None if val is None else digest_pairs(val),
        **({"parts": list_parts(train.parts)} if train.parts else {}),
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
        """Read the state; None without one, and (logged) for one of another run or a damaged one."""
        path = self._path / STATE_FILE
        if not path.exists():
            return None
        try:
            state = _read_state(path)
        except (SafetensorError, OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            logger.warning("the training state %s is damaged (%s); training starts again", path, error)
            return None
        if state.run_digest != self._run_digest:
            logger.info("the training state %s belongs to other parameters or data; training starts again", path)
            return None
        return state

    def load_best(self, epoch: int) -> dict[str, Tensor] | None:
        """Read the best weights, of an epoch; empty for 0; None (logged) if lost, damaged, or of another run."""
        self._saved_best = epoch
        if not epoch:
            return {}
        path = self._best_path(epoch)
        try:
            tensors, owner = _read_tensors(path)
            if owner not in ("", self._run_digest):  # empty in files of earlier versions
                raise ValueError("they are of other parameters or data")
            return tensors
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            logger.warning("the best weights %s cannot be read (%s); training starts again", path, error)
            return None

    def save(
        self, tensors: dict[str, Tensor], history: Sequence[EpochRecord], best_epoch: int, best: dict[str, Tensor]
    ) -> None:
        """Write the state after an epoch; before it the best weights, if they have changed."""
        if best_epoch != self._saved_best:
            _write_tensors(self._best_path(best_epoch), best, self._run_digest)
            self._saved_best = best_epoch
        self._write(tensors, history, best_epoch, finished=False)

    def finish(
        self, tensors: dict[str, Tensor], history: Sequence[EpochRecord], kept_epoch: int, metrics: dict[str, float]
    ) -> None:
        """Write the kept weights, on the CPU, as the end of the training."""
        self._write(add_prefix(tensors, "model/"), history, kept_epoch, finished=True, metrics=metrics)

    def _write(
        self,
        tensors: dict[str, Tensor],
        history: Sequence[EpochRecord],
        best_epoch: int,
        *,
        finished: bool,
        metrics: dict[str, float] | None = None,
    ) -> None:
        """Replace the state; a reader or a kill finds the old one or the new one. Then remove other best weights."""
        records = [asdict(record) for record in history]
        content = {"run_digest": self._run_digest, "history": records, "best_epoch": best_epoch, "finished": finished}
        content |= {"metrics": metrics or {}}
        _write_tensors(self._path / STATE_FILE, tensors, json.dumps(content))
        for path in self._path.glob("best-*.safetensors"):
            if finished or path != self._best_path(best_epoch):
                path.unlink(missing_ok=True)

    def _best_path(self, epoch: int) -> Path:
        return self._path / f"best-{epoch}.safetensors"


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
    """Restore what `capture_tensors` took; False (logged) if it does not fit, with the network perhaps half changed."""
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
        logger.warning("the training state does not fit the network (%s); training starts again", error)
        return False
    return True


def _read_state(path: Path) -> TrainingState:
    tensors, text = _read_tensors(path)
    content: dict[str, Any] = parse_json(text)
    history = tuple(EpochRecord(**record) for record in content["history"])
    if [record.epoch for record in history] != list(range(1, len(history) + 1)) or not (history or content["finished"]):
        raise ValueError("its history has gaps")
    best, metrics = int(content["best_epoch"]), content.get("metrics", {})
    return TrainingState(content["run_digest"], tensors, history, best, bool(content["finished"]), metrics)


def _write_tensors(path: Path, tensors: dict[str, Tensor], text: str) -> None:
    """Tensors and a text in one file, with a digest of both."""
    metadata = {"state": text, "checksum": _digest_content(tensors, text)}
    with replace_atomically(path) as temporary:
        save_file(tensors, temporary, metadata=metadata)
    if not is_remote(path):
        remove_stale_temporaries(path.parent, path)


def _read_tensors(path: Path) -> tuple[dict[str, Tensor], str]:
    """Read what `_write_tensors` wrote; raises `ValueError` if it has changed."""
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
