"""The small network that comes with the package, for those who have trained none."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from vmnet_pipeline.backends.registry import make_backend
from vmnet_pipeline.backends.weights import DEFAULT_WEIGHTS_DIR
from vmnet_pipeline.errors import CheckpointError
from vmnet_pipeline.models.checkpoints import Checkpoint, load_checkpoint
from vmnet_pipeline.types import Fingerprint

if TYPE_CHECKING:
    from vmnet_pipeline.types import Modality

STARTER_FOLDER = Path(__file__).with_name("starter_model")
"""A checkpoint: give it wherever the folder of one is expected."""
STARTER_BACKENDS: dict[Modality, tuple[str, ...]] = {
    "audio": ("descriptors_audio", "vmnet2017"),
    "video": ("descriptors_video",),
}
DEFINITION = ("preset", "version")
"""What says how a descriptor is computed; other settings of its fingerprint are of libraries and of the window."""

logger = logging.getLogger(__name__)


@cache
def load_starter() -> Checkpoint:
    """The starter model, for the descriptors of the installed libraries.

    A trained network takes the very features that it was trained on. This one has to work with any version of the
    libraries that the package admits: only the definitions of the descriptors have to be those that it was fitted to.

    Raises:
        CheckpointError: Its files are damaged, or were fitted to other descriptors.
    """
    starter = load_checkpoint(STARTER_FOLDER)
    found = {modality: describe_features(modality) for modality in STARTER_BACKENDS}
    for modality, fingerprint in found.items():
        if _list_definitions(fingerprint) != _list_definitions(starter.fingerprints[modality]):
            raise CheckpointError(
                f"the starter model was fitted to other {modality} descriptors than those of this version; fit it "
                "again with tools/fit_starter.py"
            )
    return replace(starter, fingerprints=found)


def describe_features(modality: Modality) -> Fingerprint:
    """Identity of the features of one side, by the installed backends with their defaults."""
    backends = STARTER_BACKENDS[modality]
    return Fingerprint.join(
        [make_backend({"backend": name, "weights_dir": DEFAULT_WEIGHTS_DIR}).fingerprint() for name in backends]
    )


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint of this project, also the starter model.

    Raises:
        CheckpointError: It is missing, damaged, or fitted to other descriptors.
    """
    return load_starter() if is_starter(folder) else load_checkpoint(folder)


def is_starter(folder: str | Path) -> bool:
    """Whether this is the folder of the starter model."""
    return Path(str(folder)) == STARTER_FOLDER


def describe_starter(starter: Checkpoint) -> str:
    """One sentence for those who use it without having asked for it."""
    return (
        f"no trained model found: using the starter model, fitted to {starter.params['n_clips']} clips of "
        f"{starter.params['n_works']} works; train your own with `kedro run`"
    )


def _list_definitions(fingerprint: Fingerprint) -> list[tuple[str, dict[str, object]]]:
    return [
        (part.backend, {name: part.settings[name] for name in DEFINITION if name in part.settings})
        for part in fingerprint.parts
    ]
