"""Names of the feature backends. A backend's module is imported only when the backend is asked for.

A backend is built in, comes with an installed package (entry point in the group `vmnet_pipeline.backends`), or is
given by its place, `module:Class`, in the project's own parameters. A checkpoint names backends only by name: what it
says never decides which module is imported.
"""

from __future__ import annotations

import logging
import re
from functools import cache
from importlib import import_module, metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from vmnet_pipeline.backends.weights import DEFAULT_WEIGHTS_DIR
from vmnet_pipeline.errors import ParameterError, VmnetError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vmnet_pipeline.backends.base import FeatureBackend

logger = logging.getLogger(__name__)

GROUP = "vmnet_pipeline.backends"
BACKENDS = {
    "vggish": "vmnet_pipeline.backends.vggish:VggishBackend",
    "musicnn": "vmnet_pipeline.backends.musicnn:MusicnnBackend",
    "musicnn_tags": "vmnet_pipeline.backends.musicnn:MusicnnTagsBackend",
    "efficientnet": "vmnet_pipeline.backends.efficientnet:EfficientnetBackend",
    "descriptors_audio": "vmnet_pipeline.backends.descriptors_audio:AudioDescriptorBackend",
    "vmnet2017": "vmnet_pipeline.backends.descriptors_audio:Vmnet2017Backend",
    "descriptors_video": "vmnet_pipeline.backends.descriptors_video:VideoDescriptorBackend",
    "audio_encoder": "vmnet_pipeline.backends.encoders.backend:AudioEncoder",
    "frame_encoder": "vmnet_pipeline.backends.encoders.backend:FrameEncoder",
    "clip_encoder": "vmnet_pipeline.backends.encoders.backend:ClipEncoder",
    "clap": "vmnet_pipeline.backends.encoders.named:Clap",
    "mert": "vmnet_pipeline.backends.encoders.named:Mert",
    "ast": "vmnet_pipeline.backends.encoders.named:Ast",
    "clip": "vmnet_pipeline.backends.encoders.named:Clip",
    "siglip2": "vmnet_pipeline.backends.encoders.named:Siglip2",
    "dinov3": "vmnet_pipeline.backends.encoders.named:Dinov3",
    "videoprism": "vmnet_pipeline.backends.encoders.named:Videoprism",
    "pe-av-audio": "vmnet_pipeline.backends.encoders.named:PeAvAudio",
    "pe-av-video": "vmnet_pipeline.backends.encoders.named:PeAvVideo",
}
RESERVED = {
    *("ingest", "split", "extract", "train", "evaluate", "embed", "index", "compare", "tune", "pieces", "passages"),
    *("reference", "variants", "variant", "music", "video", "backend_defaults"),
}
"""Names of pipelines and of parameters, so none for a backend."""

_DECLARED: dict[str, str] = {}


def list_backends() -> dict[str, str]:
    """Name to place, `module:Class`, of every backend: built in, of installed packages, of the project's parameters."""
    return {**_find_plugins(), **_DECLARED, **BACKENDS}


@cache
def _find_plugins() -> dict[str, str]:
    """What installed packages offer. Nothing of theirs is imported, so a broken one costs itself only."""
    found: dict[str, str] = {}
    for entry in metadata.entry_points(group=GROUP):
        package = entry.dist.name if entry.dist else "unknown"
        if fault := _find_fault(entry.name, entry.value, {*BACKENDS, *found}):
            logger.warning("Backend %r of the package %s is left out: %s", entry.name, package, fault)
        else:
            found[entry.name] = entry.value
    return found


def _find_fault(name: str, place: str, taken: set[str]) -> str:
    if not is_name(name) or name in RESERVED:
        return "it is no name for a backend; use letters, digits, '-' and '_', and no name of a pipeline or parameter"
    if name in taken:
        return "another backend has this name; uninstall one of the two packages"
    return "" if is_place(place) else f"{place!r} is no place of a class; its package must say module:Class"


def is_name(name: str) -> bool:
    """Whether a backend may have this name: it names pipelines, folders and parameters."""
    return re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]{0,79}", name) is not None


def is_place(text: str) -> bool:
    """Whether this is the place of a class, `package.module:Class`."""
    return re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", text) is not None


def declare_backends(parameters: Mapping[str, Any]) -> dict[str, str]:
    """Take up the backends that the project's parameters define under names of their own, for this process.

    Args:
        parameters: Top-level names to their content; one with a key `backend`, a registered name or `module:Class`,
            is a backend. Those of an earlier call are forgotten.

    Returns:
        Name to place of the backends under names that are not registered.

    Raises:
        ParameterError: A name that a backend cannot have, or a `backend` that is neither.
    """
    _DECLARED.clear()
    _DECLARED.update(_read_declared(parameters))
    return dict(_DECLARED)


def _read_declared(parameters: Mapping[str, Any]) -> dict[str, str]:
    declared, known = {}, {**_find_plugins(), **BACKENDS}
    for name, content in parameters.items():
        wanted = content.get("backend") if isinstance(content, dict) else None
        if wanted is None or wanted == name:
            continue
        if not is_name(str(name)) or name in RESERVED or name in BACKENDS:
            raise ParameterError(
                f"{name}.backend: {name!r} is no name for another backend; use letters, digits, '-' and '_', and no "
                "name of a pipeline or backend"
            )
        place = known.get(str(wanted), str(wanted))
        if not is_place(place):
            raise ParameterError(f"{name}.backend: {explain_unknown(str(wanted))}, or give the place module:Class")
        declared[str(name)] = place
    return declared


def _read_project() -> dict[str, str]:
    """Backends that parameter files of the project in the current folder define, for commands that load no others."""
    import yaml

    from vmnet_pipeline.storage.yaml_files import load_yaml

    content: dict[str, Any] = {}
    for folder in (Path("conf/base"), Path("conf/local")):
        for path in sorted({*folder.glob("**/parameters*.yml"), *folder.glob("**/parameters*/**/*.yml")}):
            try:
                content |= load_yaml(path.read_text(encoding="utf-8")) or {}
            except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
                raise ParameterError(f"{path}: not a file of parameters ({error}); correct it") from error
    return _read_declared(content)


def get_backend(
    name: str, params: Mapping[str, Any] | None = None, *, weights_dir: str | Path = DEFAULT_WEIGHTS_DIR
) -> FeatureBackend:
    """Make one backend by its name; cheap, nothing heavy is imported and no weights are read.

    Args:
        name: A key of `list_backends()`, or the `name` of a class that the project's parameters give the place of.
        params: Parameters of that backend; what is left out takes its default.
        weights_dir: Folder that holds, or receives, weight files. Not part of a feature's identity.

    Example:
        >>> backend = get_backend("efficientnet", {"weights": "random"})
        >>> backend.modality, backend.fingerprint().settings["weights"]["name"]
        ('video', 'random')

    Raises:
        ParameterError: Unknown name, unknown parameter, a value out of bounds, or a class that cannot be imported.
    """
    return _build(name, find_class(name), params, weights_dir)


def find_class(name: str) -> Any:
    """The class of a backend by its name, with its `name` and `modality`.

    Raises:
        ParameterError: Unknown name, or a class that cannot be imported.
    """
    places = list_backends()
    if name in places:
        return _import_class(name, places[name])
    for declared, place in {**_read_project(), **_DECLARED}.items():
        kind = _import_class(declared, place)
        if name in (declared, getattr(kind, "name", None)):
            return kind
    raise ParameterError(explain_unknown(name))


def make_backend(params: Mapping[str, Any]) -> FeatureBackend:
    """The backend that `params["backend"]` names, or whose place it gives, with the other parameters; cheap.

    With `pieces`, which are those of `PieceParams`, it reads whole files.

    Raises:
        ParameterError: Unknown backend, or a parameter it does not have.
    """
    own = dict(params)
    name, weights_dir = own.pop("backend"), Path(own.pop("weights_dir")).absolute()  # workers may be elsewhere
    pieces = own.pop("pieces", None)
    if isinstance(name, str) and is_place(name):
        backend = _build(name, _import_class(name, name), own, weights_dir)
    else:
        backend = get_backend(name, own, weights_dir=weights_dir)
    if pieces is None:
        return backend
    from vmnet_pipeline.backends.whole_file import WholeFileBackend
    from vmnet_pipeline.params import PieceParams

    return cast("FeatureBackend", WholeFileBackend(backend, PieceParams.model_validate(pieces)))


def explain_unknown(name: str) -> str:
    """Say which backends there are."""
    return (
        f"unknown backend {name!r}; known are {', '.join(sorted(list_backends()))}; that of another package must be "
        "installed with it"
    )


def _import_class(name: str, place: str) -> Any:
    """The class of a backend.

    Raises:
        ParameterError: Its module cannot be imported, or has no class that can be a backend.
    """
    module, _, attribute = place.partition(":")
    try:
        kind = getattr(import_module(module), attribute)
    except Exception as error:  # code of other people
        raise ParameterError(
            f"backend {name!r} ({place}) cannot be imported ({type(error).__name__}: {error}); repair or uninstall "
            "its package, or correct the name"
        ) from error
    missing = [part for part in ("modality", "fingerprint") if not hasattr(kind, part)]
    if missing or not isinstance(kind, type):
        raise ParameterError(
            f"backend {name!r}: {place} is no class of a backend"
            + (f", it has no {', '.join(missing)}" if missing else "")
            + "; see docs/adding-a-backend.md"
        )
    return kind


def _build(name: str, kind: Any, params: Mapping[str, Any] | None, weights_dir: str | Path) -> FeatureBackend:
    from pydantic import ValidationError

    try:
        return cast("FeatureBackend", kind(params or {}, weights_dir=weights_dir))
    except ValidationError as error:
        raise ParameterError(f"parameters of backend {name!r}: {error}") from error
    except VmnetError:
        raise
    except Exception as error:  # code of other people
        raise ParameterError(
            f"backend {name!r} cannot be made ({type(error).__name__}: {error}); correct its parameters or its package"
        ) from error
