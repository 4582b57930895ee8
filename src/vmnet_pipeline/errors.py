"""The exceptions of the project, all under one root.

Every message names the item at fault and what to do about it. An error of a single media item
(`MediaError`) becomes a row of the manifest or of the feature index; it never ends a run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError

_MAX_NAME = 100
"""Characters shown of a wrong name; in a request it may be as long as the request."""


class VmnetError(Exception):
    """Root of all errors raised on purpose by this package."""


class ParameterError(VmnetError):
    """A parameter, or a combination of parameters, that cannot be used."""


class StorageError(VmnetError):
    """A place, on a disk or in an object store, that cannot be used."""


class LimitError(VmnetError):
    """A limit of the shell or the system (memory, threads, open files, processor time) that leaves no room to work."""


class IngestError(VmnetError):
    """A media folder or media.csv that cannot be turned into a manifest."""


class MediaError(VmnetError):
    """One media file that cannot be used; `reason` is a short stable slug for counting.

    Attributes:
        reason: What is wrong, one of a small set of slugs, e.g. `no_audio_stream`.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class SandboxError(VmnetError):
    """No child process for reading media files can be started."""


class WeightsError(VmnetError):
    """A weight file that is missing, or does not have the expected checksum or content."""


class FeatureStoreError(VmnetError):
    """A feature store that cannot be read or written, that another run holds, or with features of other settings."""


class ExtractionError(VmnetError):
    """An extraction of which too many items failed, or whose workers cannot be had or end one after the other."""


class SplitError(VmnetError):
    """A split that cannot be made or that contradicts itself."""


class PairsError(VmnetError):
    """Feature pairs that cannot be packed for training or evaluation."""


class TrainingError(VmnetError):
    """Training that cannot start or cannot go on."""


class TuningError(VmnetError):
    """A search for settings that cannot start or cannot go on."""


class CheckpointError(VmnetError):
    """A checkpoint that is missing, damaged, or made for other features."""


class EmbedderError(VmnetError):
    """Features that cannot be embedded: wrong shape, not finite, or not clear what they are."""


class SearchIndexError(VmnetError):
    """Embeddings or a search index that are missing, damaged, or made with another checkpoint; or a bad filter."""


def describe_validation(error: ValidationError, *, show_value: bool = False) -> str:
    """The first fault that pydantic found, as `name: message`.

    Args:
        error: What a model raised.
        show_value: Whether to add the rejected value; not for values that may be huge or secret.
    """
    first = error.errors(include_url=False, include_context=False, include_input=show_value)[0]
    name = ".".join(map(str, first["loc"]))
    if len(name) > _MAX_NAME:
        name = name[: _MAX_NAME - 1] + "…"
    value = f", not {first['input']!r}" if show_value else ""
    return f"{name}: {first['msg']}".removeprefix(": ") + value
