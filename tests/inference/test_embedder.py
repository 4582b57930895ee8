"""The library's way in: features, or media files, to embeddings."""

import subprocess
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from crashing_backend import CrashingBackend

import vmnet_pipeline
from vmnet_pipeline import Embedder
from vmnet_pipeline.backends.registry import BACKENDS, make_backend
from vmnet_pipeline.errors import CheckpointError, EmbedderError, MediaError, ParameterError
from vmnet_pipeline.inference.embedder import recall_backend
from vmnet_pipeline.models.checkpoints import Checkpoint, build_from_checkpoint, digest_checkpoint, save_checkpoint
from vmnet_pipeline.models.embed import embed_arrays
from vmnet_pipeline.models.factory import build_model
from vmnet_pipeline.types import Fingerprint

SHAPES = {"musicnn": ([6], [7]), "vggish": ([12, 5], [7]), "sequence": ([20, 6], [15, 7])}


def make_checkpoint(tower="musicnn", fingerprints=None, shapes=None):
    music_shape, video_shape = shapes or SHAPES[tower]
    config = {
        "music_tower": tower, "video_tower": tower, "music_shape": music_shape, "video_shape": video_shape,
        "embedding_dim": 8, "dropout": 0.1, "standardise": True,
    }  # fmt: skip
    torch.manual_seed(1)
    tensors = {name: tensor.clone() for name, tensor in build_model(**config).state_dict().items()}
    return Checkpoint(config, tensors, fingerprints or {})


@pytest.fixture(scope="module")
def embedder():
    return Embedder(make_checkpoint())


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_both_sides_of_one_item(embedder):
    music, video = embedder([draw(20, 6), draw(60, 7)])
    for side in (music, video):
        assert side.shape == (1, embedder.embedding_dim)
        assert side.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(side, axis=1), 1, atol=1e-6)
    result = embedder([draw(20, 6), None])
    np.testing.assert_array_equal(result.music, music)
    assert result.video is None


def test_pooling_is_that_of_packing(embedder):
    """A batch, its items alone, a list of unlike lengths, and what was pooled before are all the same."""
    batch = draw(3, 9, 6)
    expected = embed_arrays(build_from_checkpoint(embedder.checkpoint), music=batch.mean(axis=1, dtype=np.float64))
    np.testing.assert_allclose(embedder([batch, None]).music, expected, atol=1e-6)
    np.testing.assert_allclose(embedder([list(batch), None]).music, expected, atol=1e-6)
    np.testing.assert_allclose(embedder([batch.mean(axis=1), None], pooled=True).music, expected, atol=1e-6)
    alone = np.concatenate([embedder([item, None]).music for item in batch])
    np.testing.assert_allclose(alone, expected, atol=1e-6)
    ragged = embedder([[batch[0], batch[1, :4]], None]).music
    np.testing.assert_allclose(ragged[0], expected[0], atol=1e-6)
    np.testing.assert_allclose(ragged[1], embedder([batch[1, :4], None]).music[0], atol=1e-6)


def test_raw_and_pooled_vggish():
    embedder = Embedder(make_checkpoint("vggish"))
    raw = np.abs(draw(2, 12, 5, 6, 4))
    both = embedder([raw, None]).music
    np.testing.assert_allclose(embedder([raw[0], None]).music[0], both[0], atol=1e-6)
    np.testing.assert_allclose(embedder([raw.mean(axis=(3, 4)), None], pooled=True).music, both, atol=1e-6)
    np.testing.assert_allclose(embedder([raw[1].mean(axis=(2, 3)), None], pooled=True).music[0], both[1], atol=1e-6)
    with pytest.raises(EmbedderError, match=r"\(12, 5\).*\(12, 5, time, mel\) per item.*give pooled=True"):
        embedder([raw[0].mean(axis=(2, 3)), None])
    with pytest.raises(EmbedderError, match=r"\(11, 5, 6, 4\), but this checkpoint takes \(12, 5, time, mel\)"):
        embedder([raw[0, :11], None])


def test_towers_over_sequences_take_all_steps():
    embedder = Embedder(make_checkpoint("sequence"))
    short, long = draw(5, 6), draw(200, 6)
    both = embedder([[short, long], None]).music
    assert both.shape == (2, embedder.embedding_dim)
    np.testing.assert_allclose(embedder([short, None]).music[0], both[0], atol=1e-5)
    assert not np.allclose(embedder([short[::-1].mean(axis=0, keepdims=True), None]).music[0], both[0], atol=1e-3)
    with pytest.raises(EmbedderError, match="takes all steps of its music features"):
        embedder([draw(6), None], pooled=True)
    with pytest.raises(EmbedderError, match=r"\(5, 9\)"):
        embedder([draw(5, 9), None])


@pytest.mark.parametrize(
    ("x", "pooled", "message"),
    [
        ([None, None], False, r"give \[music features, video features\]"),
        (draw(2, 3, 6), False, r"give \[music features, video features\]"),
        ([draw(20, 6)], False, r"give \[music features, video features\]"),
        ([draw(6), None], False, r"shape \(6,\).*\(T, 6\).*give pooled=True"),
        ([draw(4, 9, 6), None], True, r"takes \(6,\) per item.*omit pooled=True"),
        ([draw(20, 5), None], False, r"music features have shape \(20, 5\).*\(T, 6\)"),
        ([None, draw(2, 20, 6)], False, r"video features have shape \(20, 6\).*\(T, 7\)"),
        ([draw(2, 3, 4, 6), None], False, "music features have shape"),
        ([np.float32(1), None], False, "music features have shape"),
        ([draw(0, 6), None], False, r"shape \(0, 6\)"),
        ([draw(500, 6), None], False, r"one item with 500 steps or as many pooled items.*array\[None\].*pooled=True"),
        ([draw(3, 9, 6), draw(60, 7)], False, "3 music and 1 video items"),
        ([np.array(["a"]), None], False, "not numbers"),
        ([[[1.0, 2.0], [1.0]], None], False, "music features"),
    ],
)
def test_what_is_wrong_or_not_clear_is_an_error(embedder, x, pooled, message):
    with pytest.raises(EmbedderError, match=message):
        embedder(x, pooled=pooled)


def test_unclear_input_can_be_made_clear(embedder):
    rows = draw(500, 6)
    assert embedder([rows[None], None]).music.shape == (1, 8)
    assert embedder([rows, None], pooled=True).music.shape == (500, 8)
    assert embedder([rows[:0], None], pooled=True).music.shape == (0, 8)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e39])
def test_values_that_are_not_finite_are_named(embedder, value):
    batch = draw(3, 9, 6).astype(np.float64)
    batch[1, 4, 2] = value * 9
    with pytest.raises(EmbedderError, match="music item 1 has NaN or infinity"):
        embedder([batch, None])


def test_threads_get_the_answers_that_one_gets(embedder):
    inputs = [[draw(9, 6, seed=i), draw(5, 7, seed=i)] for i in range(40)]
    expected = [embedder(x) for x in inputs]
    wrong = []

    def work(start):
        for i in range(start, start + 80):
            found = embedder(inputs[i % 40])
            if not all(np.array_equal(a, b) for a, b in zip(found, expected[i % 40], strict=True)):
                wrong.append(i)

    threads = [threading.Thread(daemon=True, target=work, args=(7 * i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


# --- where the checkpoint comes from


def test_a_checkpoint_is_found_in_its_folder_and_in_those_above(tmp_path):
    checkpoint = make_checkpoint()
    save_checkpoint(tmp_path / "out" / "vmnet_musicnn" / "checkpoint", checkpoint)
    for path in ("out/vmnet_musicnn/checkpoint", "out/vmnet_musicnn", "out"):
        assert Embedder.load(tmp_path / path).digest == digest_checkpoint(checkpoint)
    save_checkpoint(tmp_path / "out" / "vmnet_vggish" / "checkpoint", checkpoint)
    with pytest.raises(CheckpointError, match=r"several checkpoints.*vmnet_musicnn, vmnet_vggish"):
        Embedder.load(tmp_path / "out")


def test_a_missing_checkpoint_is_an_error_and_never_random_weights(tmp_path):
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(CheckpointError, match=rf"there is no checkpoint {path}: neither config\.json.*nor"):
            Embedder.load(path)


def test_the_digest_follows_the_weights():
    checkpoint = make_checkpoint()
    changed = {name: tensor.clone() for name, tensor in checkpoint.tensors.items()}
    changed["music.fc.bias"][0] += 1e-3
    assert digest_checkpoint(replace(checkpoint, tensors=changed)) != digest_checkpoint(checkpoint)
    assert digest_checkpoint(replace(checkpoint, best_epoch=9)) == digest_checkpoint(checkpoint)


@pytest.mark.process
@pytest.mark.parametrize(("variant", "music_item"), [("musicnn", (60, 500)), ("vggish", (62, 512, 6, 4))])
def test_a_summaries_dir_of_the_reference(reference_checkpoints, variant, music_item):
    """The embeddings are those that the reference's formulas give, in plain numpy."""
    import reference_graph

    embedder = Embedder.load(reference_checkpoints / variant)
    music, video = np.abs(draw(2, *music_item)), draw(2, 60, 2048)
    found = embedder([music, video])
    assert found.music.shape == found.video.shape == (2, 512)
    variables = reference_graph.draw_variables(variant, 1799)
    pooled = music.mean(axis=1) if variant == "musicnn" else music.mean(axis=(3, 4))
    np.testing.assert_allclose(found.music, reference_graph.embed_music(variant, variables, pooled), atol=1e-4)
    np.testing.assert_allclose(
        found.video, reference_graph.embed_video(variant, variables, video.mean(axis=1)), atol=1e-4
    )
    with pytest.raises(CheckpointError, match=r"does not say which music features.*music_backend"):
        embedder.embed_music("song.mp3")


@pytest.mark.parametrize("params", [{"protocol": "reference"}, {"imported_from": "model.ckpt-1799"}])
def test_unequal_numbers_are_a_warning_where_the_original_took_them(params, caplog):
    checkpoint = make_checkpoint()
    music, video = draw(3, *SHAPES["musicnn"][0]), draw(2, *SHAPES["musicnn"][1])
    with pytest.raises(EmbedderError, match=r"3 music and 2 video items; give pairs"):
        Embedder(checkpoint)([music, video], pooled=True)
    found = Embedder(replace(checkpoint, params=params))([music, video], pooled=True)
    assert (len(found.music), len(found.video)) == (3, 2)
    np.testing.assert_array_equal(found.music, Embedder(checkpoint)([music, None], pooled=True).music)
    assert "3 music and 2 video items in one call" in caplog.text


# --- media files


@pytest.mark.parametrize(
    "params",
    [
        {"backend": "musicnn", "model": "MTT_musicnn", "layer": "taggram", "max_duration_s": 30.0},
        {"backend": "vggish", "precision": "f32", "short_audio": "zero", "pooled": True},
        {"backend": "efficientnet", "model": "b0", "rate_hz": 2.0, "dtype": "float16"},
    ],
)
def test_a_fingerprint_tells_how_to_make_its_features(params, tmp_path):
    given = {"weights_dir": tmp_path, "weights": "random", "random_seed": 3, **params}
    fingerprint = make_backend(given).fingerprint()
    assert make_backend({"weights_dir": tmp_path, **recall_backend(fingerprint)}).fingerprint() == fingerprint


class PlainBackend:
    """No more than the protocol asks for."""

    name, modality = "plain", "audio"

    def __init__(self, params=None, *, weights_dir=""):
        self.settings = {"floor_db": -60.0, **(params or {})}

    def fingerprint(self):
        return Fingerprint(self.name, self.settings)


def test_the_settings_of_a_backend_without_a_model_of_parameters_are_its_parameters(tmp_path, monkeypatch):
    monkeypatch.setitem(BACKENDS, "plain", f"{__name__}:PlainBackend")
    fingerprint = make_backend({"backend": "plain", "weights_dir": tmp_path, "floor_db": -40.0}).fingerprint()
    assert make_backend({"weights_dir": tmp_path, **recall_backend(fingerprint)}).fingerprint() == fingerprint


MUSICNN = {"backend": "musicnn", "weights": "random", "max_duration_s": 6.0, "engine": "torch", "precision": "f32"}


@pytest.fixture
def sound(tmp_path):
    import wave

    path = tmp_path / "sound.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes((8000 * draw(16_000 * 7)).clip(-32768, 32767).astype("<i2").tobytes())
    return path


@pytest.mark.process
def test_a_media_file_gets_the_embedding_of_its_features(sound, tmp_path):
    backend = make_backend({"weights_dir": tmp_path, **MUSICNN})
    device = Fingerprint("musicnn", {**backend.fingerprint().settings, "device": "cuda"})  # as trained on a GPU
    embedder = Embedder(make_checkpoint(shapes=([200], [7]), fingerprints={"audio": device}), weights_dir=tmp_path)
    found = embedder.embed_music(sound)
    backend.load()
    feature = backend.infer(backend.prepare(str(sound)).inputs)
    assert feature.shape == (2, 200)
    np.testing.assert_allclose(found, embedder([feature, None]).music, atol=1e-6)
    sound.rename(tmp_path / "e\u0301.wav")  # as a Mac writes it
    np.testing.assert_array_equal(embedder.embed_music(tmp_path / "\u00e9.wav"), found)


@pytest.mark.process
def test_a_decoder_that_crashes_is_an_error_of_that_file(embedder, sound):
    embedder._backends["music"] = CrashingBackend()
    with pytest.raises(MediaError, match="SIGSEGV") as caught:
        embedder.embed_music(sound)
    assert caught.value.reason == "decoder_crashed"


def test_another_backend_than_that_of_the_checkpoint_is_refused(sound, tmp_path):
    fingerprint = make_backend({"weights_dir": tmp_path, **MUSICNN}).fingerprint()
    checkpoint = make_checkpoint(shapes=([200], [7]), fingerprints={"audio": fingerprint})
    for backend, message in (
        ({**MUSICNN, "max_duration_s": 9.0}, r"other audio features \(max_duration_s 6.0, not 9.0\)"),
        ({"backend": "vggish", "weights": "random"}, r"backend 'musicnn', not 'vggish'"),
        ({"backend": "efficientnet", "weights": "random"}, r"makes video features, not those of music"),
    ):
        with pytest.raises(CheckpointError, match=message):
            Embedder(checkpoint, music_backend=backend, weights_dir=tmp_path).embed_music(sound)


@pytest.mark.process
def test_features_that_do_not_fit_the_network_are_an_error(sound, tmp_path):
    embedder = Embedder(make_checkpoint(), music_backend=MUSICNN, weights_dir=tmp_path)
    with pytest.raises(EmbedderError, match=r"\(200,\), but this checkpoint takes \(6,\)"):
        embedder.embed_music(sound)


def test_the_package_has_it_on_first_use():
    assert vmnet_pipeline.Embedder is Embedder
    with pytest.raises(AttributeError, match="Nothing"):
        _ = vmnet_pipeline.Nothing


@pytest.mark.process
def test_importing_the_package_stays_light():

    code = "import sys, vmnet_pipeline; print([name for name in ('torch', 'numpy', 'pandas') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_checkpoint_is_opened(remote):
    from vmnet_pipeline.inference.embedder import open_checkpoint
    from vmnet_pipeline.models.checkpoints import Checkpoint, save_checkpoint
    from vmnet_pipeline.models.factory import build_model

    config = {
        "music_tower": "musicnn", "video_tower": "musicnn", "music_shape": [4], "video_shape": [4],
        "embedding_dim": 8, "dropout": 0.1, "standardise": False,
    }  # fmt: skip
    tensors = dict(build_model(**config).state_dict())
    save_checkpoint(remote / "vmnet_musicnn/checkpoint", Checkpoint(model_config=config, tensors=tensors))
    loaded = open_checkpoint(str(remote / "vmnet_musicnn"))
    assert all(tensors[name].equal(tensor) for name, tensor in loaded.tensors.items())


@pytest.mark.parametrize("settings", [{}, {"musicnn": 5, "vggish": {}}, {"musicnn": {}}])
def test_a_joint_identity_that_does_not_tell_its_parts_is_refused(tmp_path, settings):
    fingerprint = Fingerprint("musicnn+vggish", settings)
    embedder = Embedder(make_checkpoint(fingerprints={"audio": fingerprint}), weights_dir=tmp_path)
    with pytest.raises(ParameterError, match=r"unknown backend 'musicnn\+vggish'"):
        embedder.backend("music")
    assert fingerprint.describe_difference(Fingerprint("musicnn+vggish", {"vggish": 1}))
