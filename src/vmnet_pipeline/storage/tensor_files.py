"""Check the header of a safetensors file before the library parses it, in time that grows with the named tensors."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from vmnet_pipeline.storage.checksummed import parse_json

if TYPE_CHECKING:
    from pathlib import Path

MAX_TENSORS = 20_000  # an ensemble of 64 networks with optimiser states has about 10,000
MAX_HEADER_BYTES = 16 << 20  # for names and shapes, and the history of a training
_LENGTH_BYTES = 8


def check_tensor_file(path: Path) -> None:
    """Refuse a local safetensors file whose header is larger than that of any network.

    Raises:
        OSError: It is missing or cannot be read.
        ValueError: It is not a safetensors file, or names too many tensors.
    """
    with path.open("rb") as file:
        n_bytes = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        if n_bytes > min(MAX_HEADER_BYTES, os.fstat(file.fileno()).st_size - _LENGTH_BYTES):
            raise ValueError(f"it declares a header of {n_bytes} bytes")
        header = file.read(n_bytes)
    if header.count(b'"data_offsets"') > MAX_TENSORS:
        raise ValueError(f"it names more than {MAX_TENSORS} tensors")
    content = parse_json(header)
    if not isinstance(content, dict) or len(content) > MAX_TENSORS + 1:
        raise ValueError(f"its header is not a JSON object of at most {MAX_TENSORS} tensors")
