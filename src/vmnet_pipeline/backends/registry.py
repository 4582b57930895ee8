"""Names of the feature backends. A backend's module is imported only when the backend is asked for."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from vmnet_pipeline.backends.weights import DEFAULT_WEIGHTS_DIR
from vmnet_pipeline.errors import ParameterError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vmnet_pipeline.backends.base import FeatureBackend

BACKENDS = {
    "vggish": "vmnet_pipeline.backends.vggish:VggishBackend",
    "musicnn": "vmnet_pipeline.backends.musicnn:MusicnnBackend",
    "efficientnet": "vmnet_pipeline.backends.efficientnet:EfficientnetBackend",
    "descriptors_audio": "vmnet_pipeline.backends.descriptors_audio:AudioDescriptorBackend",
    "descriptors_video": "vmnet_pipeline.backends.descriptors_video:VideoDescriptorBackend",
}


def get_backend(
    name: str, params: Mapping[str, Any] | None = None, *, weights_dir: str | Path = DEFAULT_WEIGHTS_DIR
) -> FeatureBackend:
    """Make one backend; cheap, nothing heavy is imported and no weights are read.

    Args:
        name: A key of `BACKENDS`.
        params: Parameters of that backend; what is left out takes its default.
        weights_dir: Folder that holds, or receives, weight files. Not part of a feature's identity.

    Example:
        >>> backend = get_backend("efficientnet", {"weights": "random"})
        >>> backend.modality, backend.fingerprint().settings["weights"]["name"]
        ('video', 'random')

    Raises:
        ParameterError: Unknown name, unknown parameter, or a value out of bounds.
    """
    from pydantic import ValidationError

    if name not in BACKENDS:
        raise ParameterError(f"unknown backend {name!r}; known are {', '.join(sorted(BACKENDS))}")
    module, _, attribute = BACKENDS[name].partition(":")
    try:
        return cast("FeatureBackend", getattr(import_module(module), attribute)(params or {}, weights_dir=weights_dir))
    except ValidationError as error:
        raise ParameterError(f"parameters of backend {name!r}: {error}") from error


def make_backend(params: Mapping[str, Any]) -> FeatureBackend:
    """The backend that `params["backend"]` names, with the other parameters; cheap.

    Raises:
        ParameterError: Unknown backend, or a parameter it does not have.
    """
    own = dict(params)
    name, weights_dir = own.pop("backend"), Path(own.pop("weights_dir")).absolute()  # workers may be elsewhere
    return get_backend(name, own, weights_dir=weights_dir)
