"""VM-NET pipeline: from raw video and music files to cross-modal retrieval."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vmnet_pipeline.inference.embedder import Embedder

__all__ = ["Embedder", "__version__"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "Embedder":  # not before it is asked for: every command imports this package
        from vmnet_pipeline.inference.embedder import Embedder

        return Embedder
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
