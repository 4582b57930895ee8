"""Embed features or media files in the shared space with a trained network."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from vmnet_pipeline.backends.calibration import follow_stored
from vmnet_pipeline.backends.joint import JointBackend, join_backends, list_parts
from vmnet_pipeline.backends.weights import DEFAULT_WEIGHTS_DIR
from vmnet_pipeline.errors import CheckpointError, EmbedderError
from vmnet_pipeline.inference.input_spec import InputSpec, embed_side
from vmnet_pipeline.inference.starter import load_starter, read_checkpoint
from vmnet_pipeline.media.sandbox import Sandbox
from vmnet_pipeline.models.checkpoints import (
    CONFIG_FILE,
    Checkpoint,
    StartPoint,
    build_from_checkpoint,
    check_fingerprints,
    digest_checkpoint,
)
from vmnet_pipeline.params import LimitParams
from vmnet_pipeline.storage.names import DiskNames
from vmnet_pipeline.storage.paths import as_path
from vmnet_pipeline.types import MODALITY_OF, Fingerprint, Sequences, Side

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np

    from vmnet_pipeline.backends.base import FeatureBackend
    from vmnet_pipeline.backends.whole_file import WholeFileBackend
    from vmnet_pipeline.inference.pieces import PieceEmbedder
    from vmnet_pipeline.inference.single_item import RunOne
    from vmnet_pipeline.models.two_tower import VMNet
    from vmnet_pipeline.types import FeatureArray, ItemFeature

    BackendParams: TypeAlias = "Mapping[str, Any] | Sequence[Mapping[str, Any]]"

logger = logging.getLogger(__name__)


class Embeddings(NamedTuple):
    """Embeddings of both sides.

    Attributes:
        music: (n, E) float32, rows of unit length; None if no music was given.
        video: (n, E) float32, rows of unit length; None if no video was given.
    """

    music: np.ndarray | None
    video: np.ndarray | None


class Embedder:
    """A trained network in inference mode. May be used by several threads at once.

    Attributes:
        digest: 64 hex digits that identify the network; a search index stores them.
        music_shape: Shape of one pooled music item, e.g. (500,) or (62, 512); for sequences (most steps, D).
        video_shape: The same for video, e.g. (2048,).

    Example:
        Features of both sides, pooled over time:

        >>> import numpy as np
        >>> from vmnet_pipeline import Embedder
        >>> embedder = Embedder.load(checkpoint)
        >>> rng = np.random.default_rng(0)
        >>> pair = [rng.random(shape, dtype=np.float32) for shape in (embedder.music_shape, embedder.video_shape)]
        >>> music, video = embedder(pair, pooled=True)
        >>> music.shape == video.shape == (1, embedder.embedding_dim)
        True
        >>> similarity = music @ video.T
        >>> similarity.shape
        (1, 1)
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        music_backend: BackendParams | None = None,
        video_backend: BackendParams | None = None,
        weights_dir: str | Path = DEFAULT_WEIGHTS_DIR,
        device: str = "cpu",
        sandbox: Sandbox | None = None,
    ) -> None:
        """Build the network; see `load` for the arguments."""
        self.checkpoint = checkpoint
        self.digest = digest_checkpoint(checkpoint)
        self._specs = {side: InputSpec.of(checkpoint.model_config, side) for side in MODALITY_OF}
        self.music_shape, self.video_shape = self._specs["music"].shape, self._specs["video"].shape
        self._model = build_from_checkpoint(checkpoint).requires_grad_(False).to(device)
        self._chosen: dict[Side, BackendParams | None] = {"music": music_backend, "video": video_backend}
        self.weights_dir = weights_dir
        self._backends: dict[Side, FeatureBackend | JointBackend] = {}
        self._lock = threading.Lock()
        self._singles = _build_singles(self._model, device)
        self.sandbox = sandbox or Sandbox(LimitParams.model_validate({}))
        self.embedding_dim = self._embed("video", self._specs["video"].blank).shape[1]

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        music_backend: BackendParams | None = None,
        video_backend: BackendParams | None = None,
        weights_dir: str | Path = DEFAULT_WEIGHTS_DIR,
        device: str = "cpu",
        sandbox: Sandbox | None = None,
        music_layers: int | None = None,
        video_layers: int | None = None,
        linear: bool | None = None,
    ) -> Embedder:
        """Read a checkpoint once; everything else is fast.

        Args:
            path: Folder of a checkpoint, or of a variant with `checkpoint/` in it; or of the reference: a
                `summaries_dir`, whose latest checkpoint is used, or `.../model.ckpt-N`.
            music_backend: Backend for `embed_music`: its name as `backend`, and its parameters. By default the one that
                the checkpoint was trained on, which checkpoints of the reference do not record. A list where it was
                trained on several.
            video_backend: The same for `embed_video`.
            device: Device of torch.
            sandbox: Child processes that read media files; by default its own ones, with the default limits.
            music_layers: `num_layer_x` of a checkpoint of the original code that does not record it.
            video_layers: Its `num_layer_y`.
            linear: Its `is_linear`.

        Raises:
            CheckpointError: It is missing, damaged, or does not record what its towers are.
        """
        backends = {"music_backend": music_backend, "video_backend": video_backend}
        checkpoint = open_checkpoint(path, music_layers=music_layers, video_layers=video_layers, linear=linear)
        return cls(checkpoint, weights_dir=weights_dir, device=device, sandbox=sandbox, **backends)

    @classmethod
    def load_starter(cls, *, device: str = "cpu", sandbox: Sandbox | None = None) -> Embedder:
        """The small network that comes with the package, for those who have trained none; it needs no weights.

        `embedder.checkpoint.params` says what it was fitted to. Other arguments as of `load`.

        Example:
            >>> from vmnet_pipeline import Embedder
            >>> embedder = Embedder.load_starter()
            >>> embedder.music_shape, embedder.video_shape
            ((1187,), (31,))
        """
        return cls(load_starter(), device=device, sandbox=sandbox)

    def __call__(self, x: Any, *, pooled: bool = False) -> Embeddings:
        """Embed features of both sides, or of one.

        Args:
            x: `[music, video]`; either may be None. Each is one item or, with one more axis, n items, or a list of
                items of different lengths. One item is the stored feature: (62, 512, 6, 4) for VGGish, (T, D) for all
                others.
            pooled: Whether items are pooled already, (62, 512) or (D,) each; of several backends one joint vector. Not
                for towers over sequences.

        Returns:
            `(music, video)`, each (n, E) float32 of unit rows, or None.

        Raises:
            EmbedderError: A shape is wrong or ambiguous, a value is not finite, or the sides differ in number (only a
                warning for networks of the original code or trained by `protocol: reference`).
        """
        if not isinstance(x, (list, tuple)) or len(x) != 2 or all(side is None for side in x):
            raise EmbedderError("give [music features, video features] as a list of two; one of them may be None")
        music = None if x[0] is None else self._specs["music"].read(x[0], pooled=pooled)
        video = None if x[1] is None else self._specs["video"].read(x[1], pooled=pooled)
        if music is not None and video is not None and len(music) != len(video):
            self._refuse_unequal(len(music), len(video))
        return Embeddings(
            None if music is None else self._embed("music", music),
            None if video is None else self._embed("video", video),
        )

    def embed_music(self, path: str | Path, *, warnings: list[str] | None = None) -> np.ndarray:
        """Embed the audio of one media file: (1, E) float32 of unit length.

        Args:
            path: The media file.
            warnings: Takes what the user has to know of the file, e.g. that only a part could be read; None logs it.

        Raises:
            MediaError: The file cannot be used, or reading it goes beyond the limits.
            SandboxError: No process for reading it can be started.
            CheckpointError: The backend is not the one that the checkpoint was trained on, or is not known.
            WeightsError: Its weights are not available.
        """
        return self.embed_feature("music", self.extract("music", path, warnings=warnings))

    def embed_video(self, path: str | Path, *, warnings: list[str] | None = None) -> np.ndarray:
        """Embed the frames of one media file: (1, E) float32 of unit length; otherwise as `embed_music`."""
        return self.embed_feature("video", self.extract("video", path, warnings=warnings))

    def _refuse_unequal(self, n_music: int, n_video: int) -> None:
        """Raise, or warn for a network of the original or trained by its protocol, which accepts unequal numbers."""
        message = f"there are {n_music} music and {n_video} video items"
        params = self.checkpoint.params
        if params.get("protocol") == "reference" or "imported_from" in params:
            logger.warning("%s in one call; each side is embedded by itself", message)
            return
        raise EmbedderError(
            f"{message}; give pairs, or one side at a time and None for the other (one item has one axis less than a "
            "batch)"
        )

    def _embed(self, side: Side, features: FeatureArray) -> np.ndarray:
        run = self._singles[side]
        if run is None or len(features) != 1 or isinstance(features, Sequences):
            return embed_side(self._model, side, features)
        return run(features[0])[None]

    # --- media files

    def extract(self, side: Side, path: str | Path, *, warnings: list[str] | None = None) -> ItemFeature:
        """Extract the feature of one side of a media file as the backend stores it; otherwise like `embed_music`.

        Of several backends it is a tuple with the feature of each.
        """
        features = [self._extract(part, path, warnings) for part in list_parts(self.backend(side))]
        return features[0] if len(features) == 1 else tuple(features)

    def _extract(self, backend: FeatureBackend, path: str | Path, warnings: list[str] | None) -> np.ndarray:
        prepared = self.sandbox.call(backend.prepare, DiskNames().find(str(path)))
        if warnings is not None:
            warnings += [text for text in prepared.warnings if text not in warnings]
        elif prepared.warnings:
            logger.warning("%s: %s", path, "; ".join(prepared.warnings))
        return backend.finish(backend.infer(prepared.inputs))

    def embed_feature(self, side: Side, feature: ItemFeature) -> np.ndarray:
        """Embed a result of `extract`: (1, E) float32 of unit length.

        Raises:
            EmbedderError: It does not fit the network.
        """
        import numpy as np

        is_joint = isinstance(feature, tuple)
        numbers = tuple(np.asarray(part, np.float32) for part in (feature if is_joint else (feature,)))
        return self._embed(side, self._specs[side].pack([numbers if is_joint else numbers[0]], self.backend(side).pool))

    def cut_pieces(self, side: Side, piece_s: float) -> PieceEmbedder:
        """Make an embedder for pieces of about `piece_s` seconds of items of one side.

        Raises:
            ParameterError: The features of this side, or its tower, cannot be cut.
        """
        from vmnet_pipeline.inference.pieces import PieceEmbedder

        with self._lock:
            backend = self._backends.get(side) or self._make_backend(side)
        return PieceEmbedder(self._model, self._specs[side], backend, piece_s)

    def embed_pieces(
        self, side: Side, pieces: Sequence[tuple[np.ndarray, ...]], backend: WholeFileBackend | JointBackend
    ) -> np.ndarray:
        """(n, E) float32 unit rows of the pieces of a whole file; see `pieces.split_feature`."""
        from vmnet_pipeline.inference.pieces import embed_pieces

        return embed_pieces(self._model, self._specs[side], pieces, backend)

    def backend(self, side: Side) -> FeatureBackend | JointBackend:
        """The feature backend of one side, or several joined, loaded on first use.

        Raises:
            CheckpointError: It is unknown, or not the one that the checkpoint was trained on.
            ParameterError: The name or a parameter of the backend is wrong.
            WeightsError: Its weights are not available.
        """
        with self._lock:
            if side not in self._backends:
                self._backends[side] = self._make_backend(side)
                self._backends[side].load()
            return self._backends[side]

    def _make_backend(self, side: Side) -> FeatureBackend | JointBackend:
        modality = MODALITY_OF[side]
        trained_on, params = self.checkpoint.fingerprints.get(modality), self._chosen[side]
        if not params:
            if trained_on is None:
                raise CheckpointError(
                    f"the checkpoint does not say which {side} features it was trained on; name them: "
                    f"Embedder.load(path, {side}_backend={{'backend': 'musicnn', ...}})"
                )
            params = [recall_backend(part) for part in trained_on.parts]
        listed = [params] if isinstance(params, Mapping) else params
        backend = join_backends([{"weights_dir": self.weights_dir, **own} for own in listed])
        if any(part.modality != modality for part in list_parts(backend)):
            raise CheckpointError(f"backend {backend.name!r} makes {backend.modality} features, not those of {side}")
        follow_stored(backend, trained_on)
        known = {modality: _leave_out_device(trained_on)} if trained_on else {}
        check_fingerprints(
            Checkpoint(self.checkpoint.model_config, {}, known), {modality: _leave_out_device(backend.fingerprint())}
        )
        return backend


def _build_singles(model: VMNet, device: str) -> dict[Side, RunOne | None]:
    """Faster functions for one item, for the sides that have one."""
    from vmnet_pipeline.inference.single_item import build_single

    parts: Mapping[Side, Any] = {"music": (model.music_scaler, model.music), "video": (model.video_scaler, model.video)}
    return {side: build_single(*part) if device == "cpu" else None for side, part in parts.items()}


def open_checkpoint(path: str | Path, **told: Any) -> Checkpoint:
    """Read a checkpoint of this project or of the original code.

    Args:
        told: What a checkpoint of the original does not record: `music_layers`, `video_layers`, `linear`.

    Raises:
        CheckpointError: It is missing or damaged.
    """
    folder = as_path(path).expanduser()
    own = find_own_checkpoint(folder)
    if own is not None:
        return read_checkpoint(own)
    from vmnet_pipeline.reference.checkpoint import find_prefix, import_checkpoint

    try:
        prefix = find_prefix(folder)
    except CheckpointError as error:
        raise CheckpointError(
            f"there is no checkpoint {folder}: neither {CONFIG_FILE} and weights of this project (train first, or "
            f"check the path) nor a checkpoint of the original code ({error})"
        ) from error
    return import_checkpoint(prefix, **told)


def open_start(path: str | Path) -> StartPoint:
    """Read a checkpoint to continue training from; one of the original code includes its optimiser state.

    Raises:
        CheckpointError: It is missing or damaged.
    """
    folder = as_path(path).expanduser()
    if find_own_checkpoint(folder) is not None:
        return StartPoint(open_checkpoint(folder))
    from vmnet_pipeline.reference.checkpoint import import_start

    return import_start(folder)


def find_own_checkpoint(folder: Path) -> Path | None:
    """Find a checkpoint of this project in a folder, or None.

    Raises:
        CheckpointError: There are several.
    """
    for candidate in (folder, folder / "checkpoint"):
        if (candidate / CONFIG_FILE).is_file():
            return candidate
    trained = sorted(folder.glob(f"*/checkpoint/{CONFIG_FILE}"))
    if len(trained) > 1:
        names = ", ".join(config.parent.parent.name for config in trained)
        raise CheckpointError(f"{folder} holds several checkpoints; choose the folder of one of {names}")
    return trained[0].parent if trained else None


def recall_backend(fingerprint: Fingerprint) -> dict[str, Any]:
    """Name and parameters of the backend that made features with this fingerprint.

    A backend that does not declare its parameters (`params_type`) gets all settings. What lets code of others run
    (`never_recalled` of the parameters) is not taken from a checkpoint.

    Raises:
        ParameterError: The backend is unknown.
    """
    from vmnet_pipeline.backends.registry import find_class

    params_type = getattr(find_class(fingerprint.backend), "params_type", None)
    if params_type is None:
        return {"backend": fingerprint.backend, **fingerprint.settings}
    weights = fingerprint.settings.get("weights", {})
    named = params_type.model_fields.keys() - {"weights", *getattr(params_type, "never_recalled", ())}
    params = {name: value for name, value in fingerprint.settings.items() if name in named}
    if weights.get("name") == "random":
        params |= {"weights": "random", "random_seed": weights["seed"]}
    return {"backend": fingerprint.backend, **params}


def _leave_out_device(fingerprint: Fingerprint) -> Fingerprint:
    """Allow a network trained on features from a GPU to be used without one; engine and precision still count."""
    return Fingerprint.join(
        [
            Fingerprint(part.backend, {name: value for name, value in part.settings.items() if name != "device"})
            for part in fingerprint.parts
        ]
    )
