"""Protocol of feature backends. A new backend is one module with a class like this and one registry line."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Protocol

if TYPE_CHECKING:
    import numpy as np

    from vmnet_pipeline.types import Fingerprint, Modality, PreparedItem


class FeatureBackend(Protocol):
    """Turns one media file into one feature array.

    The feature of an item is `infer` over all entries of `prepare`, concatenated along axis 0, so that
    a caller may batch entries of several files together; `finish` converts it to the stored form.
    Construction is cheap and imports nothing heavy; `load` does the heavy imports and reads the weights once.
    It can be pickled at any time, without what `load` made: workers load for themselves.
    """

    name: ClassVar[str]
    modality: ClassVar[Modality]

    def fingerprint(self) -> Fingerprint:
        """Identity of the features; finds and checks the weights but does not load the network.

        Raises:
            WeightsError: The weights are not available.
        """
        ...

    def load(self) -> None:
        """Import the engine and load the weights; idempotent.

        Raises:
            WeightsError: The weights are not available, or are damaged.
        """
        ...

    def prepare(self, path: str) -> PreparedItem:
        """Decode one file and run the front end. Called in a child process, without `load`; or here, in threads.

        Raises:
            MediaError: The file cannot be used.
        """
        ...

    def infer(self, inputs: np.ndarray) -> np.ndarray:
        """Run the network: (m, ...) inputs to (m, ...) float32 outputs, one per input. Needs `load`."""
        ...

    def finish(self, feature: np.ndarray) -> np.ndarray:
        """Convert one item's whole feature to the stored form: unchanged float32 unless configured otherwise."""
        ...

    def pool(self, feature: np.ndarray) -> np.ndarray:
        """Pool one item's stored feature to the form that training uses (table in `docs/features.md`)."""
        ...
