"""What the processor is and which number formats it multiplies in hardware."""

from __future__ import annotations

import hashlib
import platform
from functools import cache
from pathlib import Path
from typing import NamedTuple

BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})
F16_FLAGS = frozenset({"avx512_fp16", "amx_fp16"})


class Processor(NamedTuple):
    """Model name and flags as the kernel gives them; empty where it gives none."""

    model: str
    flags: frozenset[str]

    @property
    def digest(self) -> str:
        """Tells kinds of processors apart: clouds hide flags, so that a name alone does not."""
        return hashlib.sha256(" ".join([self.model, *sorted(self.flags)]).encode()).hexdigest()[:16]


@cache
def read_processor(path: Path = Path("/proc/cpuinfo")) -> Processor:
    """The processor of this machine."""
    found: dict[str, str] = {}
    try:
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            found.setdefault(name.strip(), value.strip())
    except OSError:
        pass
    return Processor(found.get("model name") or platform.processor(), frozenset(found.get("flags", "").split()))


def has_bf16() -> bool:
    """Whether the processor multiplies bfloat16 in hardware."""
    return bool(BF16_FLAGS & read_processor().flags)


def has_f16() -> bool:
    """Whether the processor multiplies float16 in hardware."""
    return bool(F16_FLAGS & read_processor().flags)
