"""Training by several processes at once, started by torchrun: one leads, the others compute their share of each batch.

The leading process (rank 0) runs whatever it would run alone. Where it trains, it broadcasts the job to the followers,
which wait in `run_follower`; they read the same memory-mapped files and write nothing. Every process embeds its part of
a batch, all embeddings are gathered, and each computes the loss over the whole batch, so that every item meets as many
negatives as it would in one process.
"""

from __future__ import annotations

import io
import logging
import pickle
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from vmnet_pipeline.errors import TrainingError
from vmnet_pipeline.training.batch_norm import PopulationBatchNorm1d, replace_batch_norms, update_statistics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

logger = logging.getLogger(__name__)

# Longest wait of followers for the leading process, which may have features to pack first.
TIMEOUT = timedelta(days=1)
_NEXT_EPOCH, _END = "next epoch", "end"


def join_group() -> None:
    """Initialise the process group; torchrun provides the rendezvous address.

    Objects travel through memory of the host, gradients and embeddings of CUDA devices through NCCL.
    """
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=TIMEOUT)


def leave_group() -> None:
    """Leave the process group."""
    dist.destroy_process_group()


def n_processes() -> int:
    """Processes that train together; 1 for training alone."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Number of this process among them; 0 leads."""
    return dist.get_rank() if dist.is_initialized() else 0


def own_device(device: torch.device) -> torch.device:
    """The CUDA device of this process, one for each on a machine; the CPU is shared."""
    if device.type != "cuda" or n_processes() == 1:
        return device
    return torch.device("cuda", dist.get_node_local_rank())


def fit_share(batch_size: int) -> int:
    """The largest batch size up to `batch_size` that all processes can share equally.

    Raises:
        TrainingError: There are more processes than pairs in a batch.
    """
    n = n_processes()
    if batch_size < n:
        raise TrainingError(f"a batch of {batch_size} cannot be shared by {n} processes; start fewer")
    return batch_size - batch_size % n


def own_share(rows: np.ndarray) -> np.ndarray:
    """The part of a batch that this process embeds."""
    size = len(rows) // n_processes()
    return rows[rank() * size : (rank() + 1) * size]


def broadcast(message: Any) -> None:
    """Send a message to every other process; arrays that are mapped from a file travel as the place in the file."""
    if n_processes() > 1:
        buffer = io.BytesIO()
        _Pickler(buffer).dump(message)
        dist.broadcast_object_list([buffer.getvalue()], src=0, device=torch.device("cpu"))


def receive() -> Any:
    """Wait for the next message of the leading process."""
    content: list[Any] = [None]
    dist.broadcast_object_list(content, src=0, device=torch.device("cpu"))
    return pickle.loads(content[0])  # noqa: S301 - from a process of this very run


class FollowerJob(Protocol):
    """What the leading process broadcasts when it starts to train."""

    def join(self) -> AbstractContextManager[tuple[Callable[[int], object], int]]:
        """Prepare this process; gives what trains an epoch by number, and the first epoch to train."""
        ...


def run_follower() -> None:
    """Compute this process's share of every training of the leading process, until `stop_followers`."""
    while (job := receive()) is not None:
        follow: FollowerJob = job
        with follow.join() as (train_epoch, epoch):
            try:
                train_epoch(epoch)
                while receive() == _NEXT_EPOCH:
                    epoch += 1
                    train_epoch(epoch)
            except TrainingError as error:
                logger.debug("the leading process reports this: %s", error)


@contextmanager
def followers_waiting(continues: Callable[[], bool]) -> Iterator[None]:
    """Keep the followers waiting in the block; then broadcast whether there is another epoch, as `continues` says."""
    verdict = _END
    try:
        yield
        verdict = _NEXT_EPOCH if continues() else _END
    finally:
        broadcast(verdict)


def stop_followers() -> None:
    """Let the followers return from `run_follower`."""
    broadcast(None)


class _Pickler(pickle.Pickler):
    """Sends a mapped array as file name, offset and shape: training pairs may be larger than the memory of all."""

    def reducer_override(self, obj: Any) -> Any:
        if not isinstance(obj, np.memmap) or not obj.flags.c_contiguous or not obj.size:
            return NotImplemented
        whole: Any = obj
        while isinstance(whole.base, np.memmap):
            whole = whole.base
        offset = whole.offset + obj.ctypes.data - whole.ctypes.data
        return np.memmap, (str(whole.filename), obj.dtype, "r", offset, obj.shape)


def gather_batch(part: Tensor) -> Tensor:
    """(B / n, D) of every process -> (B, D), in order of rank; the gradient of a process's own part flows back."""
    return part if n_processes() == 1 else cast("Any", _GatherRows).apply(part)


class _GatherRows(Function):
    @staticmethod
    def forward(ctx: Any, part: Tensor) -> Tensor:
        parts = [torch.empty_like(part) for _ in range(n_processes())]
        dist.all_gather(parts, part.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        # Every process has the same loss, so nothing needs to be sent. `share_model` averages gradients over
        # processes, and each holds only what comes through its own part: hence the factor.
        size = len(grads[0]) // n_processes()
        return grads[0][rank() * size : (rank() + 1) * size] * n_processes()


def share_model(model: nn.Module) -> nn.Module:
    """The network for one of several processes: equal weights, averaged gradients; alone, the network itself."""
    if n_processes() == 1:
        return model
    # Running statistics come from the whole batch, and so are equal everywhere without being sent.
    return DistributedDataParallel(model, forward_sync_buffers=False)


def share_batch_norms(model: nn.Module) -> None:
    """Let every batch norm take its statistics over the whole batch; names of weights stay. Alone, nothing changes."""
    if n_processes() > 1:
        replace_batch_norms(model, _BatchNorm, SharedBatchNorm.like)


class SharedBatchNorm(_BatchNorm):
    """Batch norm over the batches of all processes together; torch's own one works on CUDA only.

    Attributes:
        by_population: Whether its running variance is as that of `PopulationBatchNorm1d`.
    """

    by_population = False

    @classmethod
    def like(cls, norm: _BatchNorm) -> SharedBatchNorm:
        """Make one of the size and the variance of another batch norm."""
        shared = cls(norm.num_features, norm.eps, cast("float", norm.momentum))
        shared.by_population = isinstance(norm, PopulationBatchNorm1d)
        return shared

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def forward(self, x: Tensor) -> Tensor:
        """(B / n, C, ...) float32 -> the same shape."""
        if not self.training:
            return super().forward(x)
        x = x.float()
        axes = [axis for axis in range(x.ndim) if axis != 1]
        shape = [1, -1] + [1] * (x.ndim - 2)
        n = x.numel() // x.shape[1] * n_processes()
        mean = _sum_shared(x.sum(axes)) / n  # (C,)
        centred = x - mean.view(shape)
        variance = _sum_shared((centred**2).sum(axes)) / n  # (C,)
        update_statistics(self, mean.detach(), variance.detach() * (1.0 if self.by_population else n / (n - 1)))
        return centred * (self.weight * (variance + self.eps).rsqrt()).view(shape) + self.bias.view(shape)

    def _check_input_dim(self, input: Tensor) -> None:
        """Accept two axes or more."""


class _SumOverProcesses(Function):
    @staticmethod
    def forward(ctx: Any, part: Tensor) -> Tensor:
        return _sum_over_processes(part)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return _sum_over_processes(grads[0])


def _sum_shared(part: Tensor) -> Tensor:
    """Sum over processes; the gradient is that of what all of them make of it."""
    return cast("Tensor", cast("Any", _SumOverProcesses).apply(part))


def _sum_over_processes(part: Tensor) -> Tensor:
    total = part.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total
