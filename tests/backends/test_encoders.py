"""Encoders of the library transformers as backends: tiny models with random weights, as the library saves them."""

from __future__ import annotations

import itertools
import json
import pickle
import shutil
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tiny_encoders import save_tiny
from vmnet_pipeline.backends.encoders import library
from vmnet_pipeline.backends.encoders.windows import cut_audio, cut_frames, list_starts
from vmnet_pipeline.backends.registry import get_backend
from vmnet_pipeline.backends.whole_file import WholeFileBackend
from vmnet_pipeline.demo import make_clip
from vmnet_pipeline.errors import FeatureStoreError, ParameterError, WeightsError
from vmnet_pipeline.extraction.batching import extract_items
from vmnet_pipeline.features.store import FeatureChunk, FeatureStore
from vmnet_pipeline.media.audio import decode_audio
from vmnet_pipeline.media.video import sample_frames
from vmnet_pipeline.params import PieceParams
from vmnet_pipeline.types import MediaItem

pytestmark = pytest.mark.long

AUDIO: dict[str, tuple[str, dict[str, Any]]] = {
    "clap": ("clap", {"window_s": 2.0}),
    "mert": ("mert", {"window_s": 1.0}),
    "ast": ("ast", {"window_s": 0.64}),
    "encodec": ("audio_encoder", {"window_s": 1.0}),
    "pe-av": ("pe-av-audio", {"window_s": 1.0}),
}
FRAMES: dict[str, tuple[str, dict[str, Any]]] = {
    "clip": ("clip", {}),
    "siglip2": ("siglip2", {"rate_hz": 2.0}),
    "dinov3": ("dinov3", {}),
}
CLIPS: dict[str, tuple[str, dict[str, Any]]] = {
    "videoprism": ("videoprism", {"n_frames": 4}),
    "videomae": ("clip_encoder", {"n_frames": 4, "rate_hz": 2.0}),
    "pe-av": ("pe-av-video", {"n_frames": 4, "overlap": 0.5}),
}
CASES = [*((name, *case) for table in (AUDIO, FRAMES, CLIPS) for name, case in table.items())]


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError(f"the network was asked: {args}")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A function that gives the folder of a tiny model, made once."""
    made: dict[str, Path] = {}

    def make(name):
        if name not in made:
            made[name] = save_tiny(name, tmp_path_factory.mktemp("models") / name)
        return made[name]

    return make


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    path = tmp_path_factory.mktemp("media") / "7.mp4"
    make_clip(path, seed=7, duration_s=5.3, width=80, height=60)
    return path


@pytest.fixture(scope="module")
def short_film(tmp_path_factory):
    path = tmp_path_factory.mktemp("media") / "8.mp4"
    make_clip(path, seed=8, duration_s=0.5, width=64, height=64)
    return path


@pytest.fixture
def encoder(models, tmp_path):
    def make(name, backend, params, **others):
        given = {"model": str(models(name)), "engine": "torch", "allow_noncommercial": True, **params, **others}
        return get_backend(backend, given, weights_dir=tmp_path)

    return make


def call_library(name: str, folder: Path, backend: Any, path: Path) -> np.ndarray:
    """What the library gives for the same samples and frames, written out as its documentation does."""
    t = library.import_library()
    model = t.AutoModel.from_pretrained(folder, local_files_only=True).eval()
    with torch.inference_mode():
        if backend.modality == "audio":
            return call_with_audio(t, name, folder, model, backend, path)
        return call_with_frames(t, name, folder, model, backend, path)


def call_with_audio(t, name, folder, model, backend, path):
    extractor = t.AutoFeatureExtractor.from_pretrained(folder, local_files_only=True)
    rate = extractor.sampling_rate
    samples, window = decode_audio(path, sample_rate_hz=rate), int(backend.window_s * rate)
    starts = [*range(0, len(samples) - window + 1, window)]
    starts += [len(samples) - window] if starts[-1] + window < len(samples) else []
    pieces = [samples[start : start + window] for start in starts]
    inputs = extractor(pieces, sampling_rate=rate, return_tensors="pt")
    if name == "clap":
        return model.get_audio_features(**inputs).pooler_output.numpy()
    if name == "mert":
        return model(**inputs).last_hidden_state.mean(1).numpy()
    if name == "ast":
        return model(**inputs).pooler_output.numpy()
    if name == "encodec":
        return model.encoder(inputs["input_values"]).mean(-1).numpy()
    return model.get_audio_embeds(**inputs).numpy()


def call_with_frames(t, name, folder, model, backend, path):
    frames = [frame for _, frame in sample_frames(path, rate_hz=backend.rate_hz, max_duration_s=60.0)]
    if name in FRAMES:
        images = t.AutoImageProcessor.from_pretrained(folder, local_files_only=True)(images=frames, return_tensors="pt")
        output = model(**images) if name == "dinov3" else model.get_image_features(**images)
        return output.pooler_output.numpy()
    hop = round(4 * (1 - backend.params.overlap))
    starts = [*range(0, len(frames) - 3, hop)]
    starts += [len(frames) - 4] if starts[-1] + 4 < len(frames) else []
    clips = [np.stack(frames[start : start + 4]) for start in starts]
    processor = t.AutoVideoProcessor.from_pretrained(folder, local_files_only=True)
    clips = [torch.from_numpy(clip).permute(0, 3, 1, 2) for clip in clips]
    inputs = processor(videos=clips, do_sample_frames=False, return_tensors="pt")
    if name == "videomae":
        return model(**inputs).last_hidden_state.mean(1).numpy()
    if name == "videoprism":
        return model.get_video_features(**inputs).pooler_output.flatten(1).numpy()
    tokens = t.AutoTokenizer.from_pretrained(folder)(["calm"] * len(clips), return_tensors="pt")
    tokens = {key: tokens[key] for key in ("input_ids", "attention_mask")}
    pixels = inputs["pixel_values_videos"]
    return model.video_model(**tokens, pixel_values_videos=pixels, output_hidden_states=True).video_embeds.numpy()


@pytest.mark.parametrize(
    ("name", "backend", "params"), CASES, ids=lambda value: value if isinstance(value, str) else ""
)
def test_an_embedding_is_that_of_the_library(name, backend, params, models, encoder, film):
    own = encoder(name, backend, params)
    own.load()
    prepared = own.prepare(str(film))
    expected = call_library(name, models(name), own, film)
    found = own.infer(prepared.inputs)
    assert found.shape == expected.shape
    assert len(found) >= 2
    assert prepared.n_valid == len(found)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert np.abs(found[0] - found[1]).max() > 1e-4  # or the comparison says nothing
    one_by_one = np.concatenate([own.infer(entry[None]) for entry in prepared.inputs])
    np.testing.assert_allclose(found, one_by_one, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "backend", "params"), CASES, ids=lambda value: value if isinstance(value, str) else ""
)
def test_openvino_agrees(name, backend, params, encoder, film, short_film):
    own, through = encoder(name, backend, params), encoder(name, backend, params, engine="openvino")
    own.load()
    through.load()
    assert float((through.converted.folder / "agrees").read_text()) >= 0.999
    for path in (film, short_film):
        inputs = own.prepare(str(path)).inputs
        expected, found = own.infer(inputs), through.infer(inputs)
        cosines = (found * expected).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)
        assert cosines.min() >= 0.999
    assert own.fingerprint().digest != through.fingerprint().digest


@pytest.mark.parametrize(("name", "backend"), [("clap", "clap"), ("clip", "clip"), ("pe-av", "pe-av-video")])
def test_batches_cross_files_and_change_nothing(name, backend, encoder, film, short_film):
    params = {**AUDIO, **FRAMES, **CLIPS}[name][1]
    items = [MediaItem(str(k), str(path), f"sha256:{k}") for k, path in enumerate([film, short_film, film])]
    whole, single = ([*extract_items(encoder(name, backend, params), items, batch_size=n)] for n in (64, 1))
    assert [result.row.status for result in whole] == ["done"] * 3
    for one, other in zip(whole, single, strict=True):
        np.testing.assert_allclose(one.array, other.array, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(whole[0].array, whole[2].array, rtol=1e-5, atol=1e-5)


def test_what_an_extraction_that_ended_early_has_is_kept(encoder, film, short_film, tmp_path):
    """A process that is killed for real is in test_encoders_run."""
    items = [MediaItem(str(k), str(path), f"sha256:{k}") for k, path in enumerate([film, short_film, film])]

    def extract(folder, n_items):
        own, store = encoder("clip", "clip", {}), FeatureStore(tmp_path / folder)
        store.check_fingerprint(own.fingerprint())
        missing = [item for item in items if item.id not in store.done_ids()]
        results = itertools.islice(extract_items(own, missing, batch_size=1), n_items)
        store.write(FeatureChunk(own.fingerprint(), tuple(results)))
        return store

    assert extract("part", 1).done_ids() == ["0"]
    part, whole = extract("part", None), extract("whole", None)
    assert part.done_ids() == whole.done_ids() == ["0", "1", "2"]
    for item in whole.done_ids():
        np.testing.assert_allclose(part.load(item), whole.load(item), rtol=1e-5, atol=1e-5)
    with pytest.raises(FeatureStoreError, match="never mixed"):
        part.check_fingerprint(encoder("clip", "clip", {}, revision="b").fingerprint())


@pytest.mark.parametrize("name", ["clap", "clip", "siglip2", "videoprism"])
def test_texts_are_embedded_as_the_library_does_in_the_space_of_the_model(name, models, encoder):
    backend, params = {**AUDIO, **FRAMES, **CLIPS}[name]
    own, folder = encoder(name, backend, params), models(name)
    t = library.import_library()
    model, tokenizer = (kind.from_pretrained(folder) for kind in (t.AutoModel, t.AutoTokenizer))
    texts = ["calm piano no drums", "dark song"]
    padded = {"padding": "max_length", "max_length": 24} if name in ("siglip2", "videoprism") else {"padding": True}
    tokens = tokenizer(texts, return_tensors="pt", **padded)
    given = ("input_ids",) if name == "siglip2" else ("input_ids", "attention_mask")
    with torch.inference_mode():
        output = model.eval().get_text_features(**{key: tokens[key] for key in given})
    expected = getattr(output, "pooler_output", output).numpy()
    np.testing.assert_allclose(own.embed_text(texts), expected, rtol=1e-5, atol=1e-5)
    assert own.embed_text(["loud " * 500]).shape == (1, expected.shape[1])  # longer than the model takes
    assert own.space.startswith(f"{folder.name}@")


def test_both_sides_of_one_model_are_in_one_space_and_others_in_none(encoder):
    audio, video = encoder("pe-av", *AUDIO["pe-av"]), encoder("pe-av", *CLIPS["pe-av"])
    assert audio.space == video.space
    assert audio.space != encoder("clap", *AUDIO["clap"]).space
    assert encoder("dinov3", "dinov3", {}).space is None
    assert audio.embed_text(["calm"]).shape == video.embed_text(["calm"]).shape
    with pytest.raises(ParameterError, match=r"embeds no texts"):
        encoder("dinov3", "dinov3", {}).embed_text(["calm"])


def test_a_joint_embedding_is_pooled_by_direction(encoder):
    rows = np.array([[3.0, 0.0], [0.0, 1.0]], np.float32)
    assert encoder("clip", "clip", {}).pool(rows).tolist() == [0.5, 0.5]
    assert encoder("dinov3", "dinov3", {}).pool(rows).tolist() == [1.5, 0.5]


def test_another_revision_or_window_or_licence_is_another_fingerprint(encoder, models, tmp_path):
    name, params = AUDIO["clap"]
    plain = encoder("clap", name, params, revision="a").fingerprint()
    assert plain.settings["licence"] == "unknown"
    changed = save_tiny("clap", tmp_path / "clap", seed=1)
    others = [
        encoder("clap", name, params, revision="b"),
        encoder("clap", name, params, revision="a", overlap=0.5),
        encoder("clap", name, {"window_s": 1.0}, revision="a"),
        encoder("clap", name, params, revision="a", licence="mit"),
        encoder("clap", name, params, revision="a", model=str(changed)),
    ]
    digests = {plain.digest, *(other.fingerprint().digest for other in others)}
    assert len(digests) == 6
    moved = shutil.copytree(models("clap"), tmp_path / "elsewhere" / "clap")
    assert encoder("clap", name, params, revision="a", model=str(moved)).fingerprint() == plain


def test_the_backend_of_a_checkpoint_is_found_below_the_weights_and_runs_no_code(encoder, models, tmp_path):
    from vmnet_pipeline.inference.embedder import recall_backend

    fingerprint = encoder("clap", *AUDIO["clap"], allow_remote_code="", revision="a").fingerprint()
    shutil.copytree(models("clap"), tmp_path / "encoders" / "clap")
    params = recall_backend(fingerprint)
    assert get_backend(params.pop("backend"), params, weights_dir=tmp_path).fingerprint() == fingerprint
    fingerprint.settings["allow_remote_code"] = "a"
    assert "allow_remote_code" not in recall_backend(fingerprint)


def test_a_worker_gets_the_processor_and_opens_no_file(encoder, models, film, monkeypatch):
    own = encoder("clip", "clip", {})
    sent = pickle.dumps(own)
    monkeypatch.setattr(library, "load_processor", None)
    received = pickle.loads(sent)
    assert (received.prepare(str(film)).inputs == own.prepare(str(film)).inputs).all()
    assert len(sent) < 100_000


def test_windows_keep_everything():
    assert [(piece[0], piece[-1]) for piece in cut_audio(np.arange(10), 4, 4)] == [(0, 3), (4, 7), (6, 9)]
    assert cut_audio(np.arange(3), 4, 4)[0].tolist() == [0, 1, 2, 0]
    assert cut_frames(np.arange(3), 4, 4).tolist() == [[0, 1, 2, 2]]
    for n in range(1, 30):
        for window, hop in ((4, 4), (4, 1), (5, 3)):
            starts = list_starts(n, window, hop)
            assert {k for start in starts for k in range(start, start + window)} >= {*range(n)}
            assert n < window or starts[-1] + window == n


def test_audio_shorter_than_a_window_is_repeated(encoder, short_film):
    assert encoder("clap", *AUDIO["clap"]).prepare(str(short_film)).inputs.shape == (1, 1, 101, 16)
    assert encoder("videoprism", *CLIPS["videoprism"]).prepare(str(short_film)).inputs.shape == (1, 4, 3, 36, 36)


# --- what cannot be used


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"model": "nobody/nothing"}, ParameterError, "needs the 40 digits of a commit"),
        ({"model": "nobody/nothing", "revision": "main"}, ParameterError, "revision 'main' of nobody/nothing"),
        ({"model": "nobody/nothing", "revision": "0" * 40}, WeightsError, "kedro weights fetch nobody/nothing@0000"),
        ({"model": "no folder"}, WeightsError, "neither a folder here, nor one below .*encoders, nor OWNER/NAME"),
        ({}, WeightsError, r"'openai/clip-vit-base-patch32', revision 3d74.* are not available; `kedro weights fetch"),
    ],
)
def test_a_model_that_is_not_here(params, error, message, tmp_path):
    with pytest.raises(error, match=message):
        get_backend("clip", params, weights_dir=tmp_path).fingerprint()


def test_a_preset_without_a_known_revision_asks_for_one(tmp_path):
    with pytest.raises(ParameterError, match=r"revision '' of facebook/pe-av-small: .* its page lists them"):
        get_backend("pe-av-video", {}, weights_dir=tmp_path).fingerprint()


def test_a_folder_of_another_kind(encoder, models, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(WeightsError, match=r"empty: has no config\.json"):
        encoder("clip", "clip", {}, model=str(empty)).fingerprint()
    for name, kept in (("pickled", "pytorch_model.bin"), ("none", None), ("part", "model.safetensors.index.json")):
        folder = shutil.copytree(models("clip"), tmp_path / name)
        (folder / "model.safetensors").unlink()
        if kept:
            (folder / kept).write_text('{"weight_map": {"a": "model-00001.safetensors"}}')
        with pytest.raises(WeightsError, match="has no complete safetensors"):
            encoder("clip", "clip", {}, model=str(folder)).fingerprint()
    with pytest.raises(WeightsError, match=r"only pytorch_model\.bin, which may hold code"):
        encoder("clip", "clip", {}, model=str(tmp_path / "pickled")).fingerprint()


def test_a_model_of_texts_or_of_the_other_side(encoder, models, tmp_path):
    texts = shutil.copytree(models("clip"), tmp_path / "bert")
    edit(texts, model_type="bert")
    message = "'bert' is 'bert', which embeds neither audio nor frames here; for frames choose one of clip"
    with pytest.raises(ParameterError, match=message):
        encoder("clip", "clip", {}, model=str(texts)).fingerprint()
    with pytest.raises(ParameterError, match="is 'clap', for audio; for frames choose one of"):
        encoder("clip", "clip", {}, model=str(models("clap"))).fingerprint()
    with pytest.raises(ParameterError, match="is 'clip', for frames; for audio choose one of"):
        encoder("clap", "clap", {}, model=str(models("clip"))).fingerprint()


def test_weights_that_are_not_for_commercial_use(encoder, models, tmp_path):
    folder = shutil.copytree(models("mert"), tmp_path / "mert")
    (folder / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n# A model\n")
    own = encoder("mert", "mert", {"window_s": 1.0}, model=str(folder))
    assert own.fingerprint().settings["licence"] == "cc-by-nc-4.0"
    with pytest.raises(ParameterError, match=r"under cc-by-nc-4\.0, not for commercial use.*allow_noncommercial: true"):
        encoder("mert", "mert", {}, model=str(folder), allow_noncommercial=False).fingerprint()
    for licence, refused in (("CC BY-NC-SA 4.0", True), ("apache-2.0", False), ("gpl-incompatible", False)):
        backend = encoder("clip", "clip", {}, licence=licence, allow_noncommercial=False)
        if refused:
            with pytest.raises(ParameterError, match="not for commercial use"):
                backend.fingerprint()
        else:
            assert backend.fingerprint().settings["licence"] == licence


CODE = """
from transformers import HubertConfig, HubertModel
class MERTConfig(HubertConfig):
    model_type = "mert_model"
class MERTModel(HubertModel):
    config_class = MERTConfig
"""


def test_code_of_a_model_runs_only_where_its_revision_is_named(encoder, models, tmp_path, monkeypatch):
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder = shutil.copytree(models("mert"), tmp_path / "coded")
    (folder / "modeling_mert.py").write_text(CODE)
    classes = {"AutoConfig": "modeling_mert.MERTConfig", "AutoModel": "modeling_mert.MERTModel"}
    edit(folder, model_type="mert_model", auto_map=classes)
    params = {"window_s": 1.0, "model": str(folder), "revision": "r1"}
    with pytest.raises(ParameterError, match=r"runs Python code of its publisher; read it, and allow it by .*: r1"):
        encoder("mert", "mert", params).load()
    with pytest.raises(ParameterError, match="allow_remote_code 'r0': the model is revision 'r1'"):
        encoder("mert", "mert", params, allow_remote_code="r0").load()
    allowed, plain = encoder("mert", "mert", params, allow_remote_code="r1"), encoder("mert", "mert", {"window_s": 1.0})
    allowed.load()
    plain.load()
    noise = np.random.default_rng(0).standard_normal((2, *plain.input_shape)).astype(np.float32)
    np.testing.assert_allclose(allowed.infer(noise), plain.infer(noise), atol=1e-6)
    assert "modeling_mert.py" in allowed.fingerprint().settings["weights"]["sha256"]


def test_files_that_lack_weights_are_refused(encoder, models, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(models("clip"), tmp_path / "cut")
    state = load_file(folder / "model.safetensors")
    del state["visual_projection.weight"]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=r"lack 1 of the weights, e\.g\. visual_projection\.weight"):
        encoder("clip", "clip", {}, model=str(folder)).load()
    (folder / "model.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(WeightsError, match="'cut': its network cannot be loaded"):
        encoder("clip", "clip", {}, model=str(folder)).load()
    (folder / "preprocessor_config.json").write_text("[")
    with pytest.raises(WeightsError, match="its processor cannot be loaded"):
        _ = encoder("clip", "clip", {}, model=str(folder)).processor


def test_a_window_longer_than_the_model_takes(encoder):
    with pytest.raises(ParameterError, match="window_s 3: this model takes at most 2 s; give less"):
        encoder("clap", "clap", {"window_s": 3.0}).load()
    with pytest.raises(ParameterError, match=r"window_s 1: this model takes at most 0\.6"):
        encoder("ast", "ast", {"window_s": 1.0}).load()


def test_random_weights_are_for_presets(tmp_path):
    with pytest.raises(ParameterError, match="only a preset says which architecture"):
        get_backend("audio_encoder", {"weights": "random"}, weights_dir=tmp_path).fingerprint()
    settings = get_backend("clap", {"weights": "random"}, weights_dir=tmp_path).fingerprint().settings
    assert settings["weights"] == {"name": "random", "seed": 0}


def test_without_the_extra_the_message_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(ParameterError, match=r"pip install 'vmnet-pipeline\[encoders\]'"):
        get_backend("clap", {"weights": "random"}, weights_dir=tmp_path).load()


@pytest.mark.parametrize(
    ("name", "backend", "params"),
    [
        ("clap", "clap", {"window_s": 2.0}),
        ("ast", "ast", {"window_s": 0.64, "overlap": 0.5}),
        ("clip", "clip", {"rate_hz": 3.0}),
        ("videomae", "clip_encoder", {"n_frames": 4, "rate_hz": 2.0}),
        ("pe-av", "pe-av-video", {"n_frames": 4, "overlap": 0.5, "rate_hz": 3.0}),
    ],
)
def test_a_stream_has_the_entries_of_the_whole_file(name, backend, params, encoder, film, short_film):
    for path in (film, short_film):
        own = encoder(name, backend, params)
        streamed = [part.inputs for part in own.stream(str(path), 10.0, 5.0)]
        np.testing.assert_allclose(np.concatenate(streamed[:-1]), own.prepare(str(path)).inputs, atol=1e-4)
        assert len(streamed[-1]) == 0


def test_pieces_are_pooled_as_items_are(encoder, film):
    whole = WholeFileBackend(encoder("clap", "clap", {"window_s": 1.0}), PieceParams())
    rows = np.random.default_rng(0).standard_normal((4, 8)).astype(np.float32)
    np.testing.assert_allclose(whole.pool_piece(rows), whole.inner.pool(rows))
    assert not np.allclose(whole.pool_piece(rows), rows.mean(axis=0))  # of a joint space: rows of unit length
