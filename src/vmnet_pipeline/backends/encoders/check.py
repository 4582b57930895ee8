"""Does a model give here what the library gives, and how fast? `kedro encoders check` asks it of a user's weights."""

from __future__ import annotations

import platform
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from vmnet_pipeline.backends.encoders import library
from vmnet_pipeline.backends.encoders.backend import AudioEncoder
from vmnet_pipeline.backends.encoders.windows import cut_audio, list_starts
from vmnet_pipeline.media.audio import decode_audio
from vmnet_pipeline.media.video import sample_frames

if TYPE_CHECKING:
    from vmnet_pipeline.backends.encoders.backend import EncoderBackend, FrameEncoder

SECONDS = 25.0
LEAST_COSINE, MOST_DIFFERENCE = 0.999, 1e-4
_PACKAGES = ("transformers", "torch", "torchvision", "timm", "openvino", "numpy")


def check_encoder(backend: EncoderBackend, path: Path) -> dict[str, Any]:
    """Compare the embeddings of a media file with those of the library's own call, and time both.

    Args:
        backend: With weights of its own.
        path: A media file with the backend's side.

    Returns:
        Rows of a report, name to text; `verdict` is `good` or says what differs.

    Raises:
        MediaError: The file cannot be used.
        WeightsError: The weights are not available.
    """
    started = time.perf_counter()
    backend.load()
    load_s = time.perf_counter() - started
    inputs = backend.prepare(str(path)).inputs
    backend.infer(inputs[:1])  # the first call also sets up
    started = time.perf_counter()
    found = backend.infer(inputs)
    infer_s = time.perf_counter() - started
    expected = call_library(backend, path)
    rows = describe(backend) | {"entries": f"{found.shape[0]} of {inputs.shape[1:]} to {found.shape[1]}"}
    rows |= {"load": f"{load_s:.1f} s", "network": f"{infer_s / len(found):.4f} s per entry"}
    return rows | judge(found, expected, is_same_engine=backend.fingerprint().settings["engine"] == "torch")


def judge(found: np.ndarray, expected: np.ndarray, *, is_same_engine: bool) -> dict[str, Any]:
    """Differences of two sets of embeddings, (n, D) each, and whether they are small enough."""
    if found.shape != expected.shape:
        return {"verdict": f"DIFFERS: {found.shape} here, {expected.shape} from the library"}
    scale = max(float(np.abs(expected).max()), 1e-12)
    difference = float(np.abs(found - expected).max()) / scale
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    cosine = float(((found * expected).sum(axis=1) / np.maximum(lengths, 1e-12)).min())
    is_good = cosine >= LEAST_COSINE and (difference <= MOST_DIFFERENCE or not is_same_engine)
    return {
        "difference": f"{difference:.2e} of the largest value",
        "cosine": f"{cosine:.6f}",
        "verdict": "good" if is_good else "DIFFERS from the library",
    }


def describe(backend: EncoderBackend) -> dict[str, str]:
    """What was checked, on what."""
    source, settings = backend.source, backend.fingerprint().settings
    return {
        "backend": backend.name,
        "model": f"{source.name}, revision {source.revision or 'not named'}, {source.licence}",
        "kind": backend.model_type,
        "weights": ", ".join(f"{name} {digest[:12]}" for name, digest in source.sha256.items() if "safe" in name),
        "engine": f"{settings['engine']} on {settings['device']}, {settings['precision']}",
        "space": backend.space or "none",
        "versions": ", ".join(f"{name} {_find_version(name)}" for name in _PACKAGES),
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
    }


def _find_version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def call_library(backend: EncoderBackend, path: Path) -> np.ndarray:
    """The embeddings of the library's public methods, given all that its processor makes; (n, D) float32."""
    import torch

    model, processor = backend.load_model(), library.load_processor(backend.source.folder, backend.name, backend.kind)
    if isinstance(backend, AudioEncoder):
        given = _process_audio(backend, processor, path)
    else:
        given = _process_frames(cast("FrameEncoder", backend), processor, path)
    with torch.inference_mode():
        output = _call_publicly(model, backend.kind, given, backend.params.layer)
    return np.asarray(output.flatten(1).float().numpy(), np.float32)


def _process_audio(backend: AudioEncoder, processor: Any, path: Path) -> dict[str, Any]:
    rate = int(processor.sampling_rate)
    samples = decode_audio(path, sample_rate_hz=rate, max_duration_s=backend.params.max_duration_s)
    window = round(backend.window_s * rate)
    pieces = cut_audio(samples, window, round(window * (1.0 - backend.params.overlap)))
    return dict(processor(pieces, sampling_rate=rate, return_tensors="pt"))


def _process_frames(backend: FrameEncoder, processor: Any, path: Path) -> dict[str, Any]:
    found = sample_frames(path, rate_hz=backend.rate_hz, max_duration_s=backend.params.max_duration_s)
    frames, n = [frame for _, frame in found], backend.n_frames
    if backend.kind == "frame":
        return dict(processor(images=frames, return_tensors="pt"))
    frames += [frames[-1]] * (n - len(frames))
    hop = max(1, round(n * (1.0 - backend.params.overlap)))
    clips = [np.stack(frames[start : start + n]).transpose(0, 3, 1, 2) for start in list_starts(len(frames), n, hop)]
    return dict(processor(videos=clips, do_sample_frames=False, return_tensors="pt"))


def _call_publicly(model: Any, kind: str, given: dict[str, Any], layer: int) -> Any:
    """Call the method that the library documents for this kind of model."""
    name = model.config.model_type
    if name in ("clap", "pe_audio", "pe_audio_video") and kind == "audio":
        method = "get_audio_features" if name == "clap" else "get_audio_embeds"
        if "is_longer" in given:  # its processor calls one window longer at random where none is
            given["is_longer"] = given["is_longer"] & False
        output = getattr(model, method)(**given)
    elif name in ("clip", "siglip"):
        output = model.get_image_features(**given)
    elif name in ("xclip", "videoprism"):
        output = model.get_video_features(**given)
    elif name in ("pe_video", "pe_audio_video"):
        side = getattr(model, "video_model", model)
        output = side.video_head(side.video_encoder(**given).pooler_output)
    elif name == "encodec":
        output = model.encoder(given["input_values"]).mean(dim=-1)
    else:
        output = model(**given, output_hidden_states=True)
        if getattr(output, "pooler_output", None) is None:
            output = (output.hidden_states[layer] if kind == "audio" else output.last_hidden_state).mean(dim=1)
    return output if hasattr(output, "ndim") else output.pooler_output


def make_sample(folder: Path) -> Path:
    """A media file with both sides, always the same."""
    from vmnet_pipeline.demo import make_clip

    return make_clip(folder / "sample.mp4", seed=17, duration_s=SECONDS, width=320, height=180)


def check_on_sample(backend: EncoderBackend) -> dict[str, Any]:
    """Check on a media file that is made for this."""
    with tempfile.TemporaryDirectory() as folder:
        return check_encoder(backend, make_sample(Path(folder)))
