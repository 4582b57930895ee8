"""Weights of networks that are written in torch: read, put in, drawn."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING, Any, TypeVar

from vmnet_pipeline.errors import WeightsError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import nn

Network = TypeVar("Network", bound="nn.Module")


def load_torch_file(path: Path) -> dict[str, Any]:
    """Read tensors from a .pth file; code inside it is never run.

    Raises:
        WeightsError: The file is not a plain dict of tensors.
    """
    import torch

    try:
        _refuse_packed(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of any kind: a damaged file leads its parser anywhere
        raise WeightsError(f"{path}: not a readable weight file ({error}); delete it and fetch it again") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path}: not a dict of tensors; delete it and fetch it again")
    return content


def _refuse_packed(path: Path) -> None:
    """Torch stores tensors as they are; a file that is smaller than its content was made to fill the memory.

    Raises:
        ValueError: It is such a file.
    """
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        n_bytes = sum(member.file_size for member in archive.infolist())
    if n_bytes > path.stat().st_size:
        raise ValueError(f"it unpacks to {n_bytes} bytes, more than it has")


def load_state(network: nn.Module, state: dict[str, Any], source: str) -> None:
    """Put all tensors of a state dict into a network; names and shapes must agree exactly.

    Raises:
        WeightsError: They do not.
    """
    try:
        network.load_state_dict(
            {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
            | {key: value for key, value in network.state_dict().items() if key.endswith("num_batches_tracked")}
        )
    except RuntimeError as error:
        raise WeightsError(f"weights {source!r} do not fit the network: {error}") from error


def build_seeded(make: Callable[[], Network], seed: int) -> Network:
    """Build a network with random weights that depend on the seed only; the global generator is left alone."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()
