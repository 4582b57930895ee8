"""musicnn: patches, network, weights, whole backend."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch

from vmnet_pipeline.backends import musicnn
from vmnet_pipeline.backends.musicnn import MusicnnBackend, cut_patches
from vmnet_pipeline.backends.networks.musicnn import LAYERS, MusicnnNetwork
from vmnet_pipeline.errors import MediaError

RATE_HZ = 16_000


@pytest.mark.parametrize(("duration_s", "n_patches"), [(60, 20), (180, 60), (300, 100), (3, 1), (0.01, 1)])
def test_patch_counts(duration_s, n_patches):
    samples = np.full(round(duration_s * RATE_HZ), 0.01, np.float32)
    assert cut_patches(samples).shape == (n_patches, 187, 96)


def test_patches_do_not_overlap_and_the_tail_is_dropped(rich_sound):
    log_mel = musicnn.measure_log_mel(rich_sound)
    patches = cut_patches(rich_sound)
    assert len(patches) == 2
    np.testing.assert_array_equal(np.concatenate(patches), log_mel[:374])
    assert len(log_mel) > 374


def test_short_sound_is_repeated_by_default(make_sound):
    sound = make_sound(1.0)
    (patch,) = cut_patches(sound)
    np.testing.assert_array_equal(patch, musicnn.measure_log_mel(np.resize(sound, 186 * 256)))
    assert (patch.max(axis=1) > 0).all()


def test_short_sound_is_zero_padded_as_the_reference_does(make_sound):
    sound = make_sound(1.0)
    (patch,) = cut_patches(sound, "zero")
    log_mel = musicnn.measure_log_mel(sound)
    np.testing.assert_array_equal(patch[: len(log_mel)], log_mel)
    assert not patch[len(log_mel) :].any()


@pytest.mark.parametrize(("n_mid", "n_dense", "expected"), [(64, 200, 792_079), (512, 500, 7_993_819)])
def test_parameter_counts(n_mid, n_dense, expected):
    """The published figures count the moving averages too."""
    network = MusicnnNetwork(n_mid, n_dense)
    moving = [buffer for name, buffer in network.named_buffers() if "running" in name]
    assert sum(tensor.numel() for tensor in (*network.parameters(), *moving)) == expected


@pytest.mark.parametrize("model", ["MSD_musicnn", "MTT_musicnn"])
@pytest.mark.parametrize("layer", ["penultimate", "max_pool", "mean_pool", "taggram"])
def test_network_equals_the_original_graph(model, layer, weights_dir, golden_dir):
    """Golden outputs come from the original package's own graph (tests/golden/make_feature_golden.py)."""
    golden = np.load(golden_dir / f"{model}.npz")
    backend = MusicnnBackend({"model": model, "layer": layer, "engine": "torch"}, weights_dir=weights_dir)
    backend.load()
    ours = backend.infer(make_patches())
    assert ours.shape == golden[layer].shape
    assert np.abs(ours - golden[layer]).max() <= 1e-4 * np.abs(golden[layer]).max()


def make_patches() -> np.ndarray:
    """The golden inputs: log-mel-like noise."""
    return np.random.default_rng(7).uniform(0, 5, (3, 187, 96)).astype(np.float32)


def test_mean_max_add_is_the_sum_of_both_pools():
    torch.manual_seed(0)
    network = MusicnnNetwork(64, 200).eval()
    outputs = {}
    with torch.inference_mode():
        for layer in LAYERS:
            network.layer = layer
            outputs[layer] = network(torch.from_numpy(make_patches()))
    torch.testing.assert_close(outputs["mean_max_add"], outputs["max_pool"] + outputs["mean_pool"])
    assert outputs["mean_max_add"].shape == (3, 753)
    assert outputs["penultimate"].shape == (3, 200)
    assert outputs["taggram"].shape == (3, 50)


def test_backend_from_file_to_feature(write_wav, weights_dir, make_sound):
    path = write_wav(make_sound(7.0))
    backend = MusicnnBackend({"engine": "torch"}, weights_dir=weights_dir)
    backend.load()
    item = backend.prepare(path)
    feature = backend.infer(item.inputs)
    assert item.n_valid == len(item.inputs) == 2
    assert feature.shape == (2, 200)
    assert feature.dtype == np.float32
    assert backend.pool(feature).shape == (200,)
    np.testing.assert_allclose(backend.pool(feature), feature.mean(axis=0), rtol=1e-5, atol=1e-6)


def test_window_is_cut(write_wav, make_sound):
    backend = MusicnnBackend({"weights": "random", "max_duration_s": 6.0})
    assert len(backend.prepare(write_wav(make_sound(13.0))).inputs) == 2


def test_items_batched_together_give_the_same_as_alone(weights_dir):
    backend = MusicnnBackend({"batch_size": 2}, weights_dir=weights_dir)
    backend.load()
    patches = make_patches()
    together = backend.infer(patches)
    alone = np.concatenate([backend.infer(patch[None]) for patch in patches])
    np.testing.assert_allclose(together, alone, atol=1e-4 * np.abs(alone).max())


def test_infer_before_load_is_refused():
    with pytest.raises(RuntimeError, match="load"):
        MusicnnBackend().infer(make_patches())


def test_missing_audio_is_a_media_error(tmp_path):
    (tmp_path / "x.wav").write_bytes(b"nothing")
    with pytest.raises(MediaError):
        MusicnnBackend().prepare(str(tmp_path / "x.wav"))


def test_fingerprint_tells_everything_that_changes_numbers(weights_dir):
    base = MusicnnBackend({}, weights_dir=weights_dir).fingerprint()
    assert "auto" not in json.dumps(base.settings)
    assert len(base.settings["weights"]["sha256"]) == 2
    others = [{"layer": "max_pool"}, {"model": "MTT_musicnn"}, {"max_duration_s": 60}, {"short_audio": "zero"}]
    others += [{"engine": "torch"}, {"weights": "random"}, {"weights": "random", "random_seed": 1}]
    digests = {MusicnnBackend(other, weights_dir=weights_dir).fingerprint().digest for other in others}
    assert len(digests | {base.digest}) == len(others) + 1
    same = MusicnnBackend({"n_threads": 1, "batch_size": 3}, weights_dir=weights_dir).fingerprint()
    assert same == base


def test_random_weights_are_seeded_and_leave_the_global_generator_alone():
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first, again, other = (
        MusicnnBackend({"weights": "random", "random_seed": seed}).build_network().dense.weight for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_loaded_backend_can_be_sent_to_a_worker():
    backend = MusicnnBackend({"weights": "random", "engine": "torch"})
    backend.load()
    copy = pickle.loads(pickle.dumps(backend))
    with pytest.raises(RuntimeError):
        copy.infer(make_patches())
    copy.load()
    np.testing.assert_array_equal(copy.infer(make_patches()), backend.infer(make_patches()))


@pytest.mark.process
@pytest.mark.weights
@pytest.mark.parametrize("model", ["MSD_musicnn", "MTT_musicnn"])
def test_network_equals_the_original_graph_live(model, peers_dir, golden_dir, weights_dir, tmp_path, rich_sound):
    patches = cut_patches(rich_sound)
    np.save(tmp_path / "patches.npy", patches)
    command = [sys.executable, str(golden_dir / "original_musicnn.py")]
    command += [str(peers_dir / "musicnn" / model), str(tmp_path / "patches.npy"), str(tmp_path / "out.npz")]
    subprocess.run(command, check=True, capture_output=True)
    original = np.load(tmp_path / "out.npz")
    for layer in ("penultimate", "max_pool", "mean_pool", "taggram"):
        backend = MusicnnBackend({"model": model, "layer": layer, "engine": "torch"}, weights_dir=weights_dir)
        backend.load()
        theirs = original[layer]
        assert np.abs(backend.infer(patches) - theirs).max() <= 1e-4 * np.abs(theirs).max()
