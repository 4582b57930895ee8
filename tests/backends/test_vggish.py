"""VGGish: window, patches, convolutions, whole backend."""

from __future__ import annotations

import importlib.util
import json

import numpy as np
import pytest
import scipy.signal
import torch

from vmnet_pipeline.backends import vggish
from vmnet_pipeline.backends.networks.vggish import CONV_KEYS, VggishConvolutions, pick_state
from vmnet_pipeline.backends.vggish import VggishBackend, count_patches, count_samples, cut_patches, fill_window
from vmnet_pipeline.errors import WeightsError

N_WINDOW = 960_000


def test_one_minute_gives_62_patches():
    log_mel = vggish.measure_log_mel(np.zeros(N_WINDOW, np.float32))
    assert log_mel.shape == (5_998, 64)
    assert cut_patches(np.zeros(N_WINDOW, np.float32)).shape == (62, 96, 64)
    assert count_patches(N_WINDOW) == 62


def test_silence_is_the_log_of_the_offset():
    np.testing.assert_allclose(vggish.measure_log_mel(np.zeros(16_000)), np.log(0.01), rtol=1e-6)


@pytest.mark.parametrize("n_patches", [1, 2, 62])
def test_count_samples_is_the_least_that_suffices(n_patches):
    n = count_samples(n_patches)
    assert (count_patches(n), count_patches(n - 1)) == (n_patches, n_patches - 1)


@pytest.mark.parametrize("n", [N_WINDOW, N_WINDOW + 1, 2 * N_WINDOW])
@pytest.mark.parametrize("policy", ["loop", "zero", "mask"])
def test_long_sound_is_always_cut_to_the_window(n, policy):
    samples = np.arange(n, dtype=np.float32)
    np.testing.assert_array_equal(fill_window(samples, N_WINDOW, policy), samples[:N_WINDOW])


def test_short_sound_policies():
    samples = np.arange(1, 40_001, dtype=np.float32)
    looped = fill_window(samples, N_WINDOW, "loop")
    assert len(looped) == N_WINDOW
    np.testing.assert_array_equal(looped[40_000:80_000], samples)
    zeroed = fill_window(samples, N_WINDOW, "zero")
    assert len(zeroed) == N_WINDOW
    assert not zeroed[40_000:].any()
    np.testing.assert_array_equal(fill_window(samples, N_WINDOW, "mask"), samples)
    assert len(fill_window(samples[:10], N_WINDOW, "mask")) == count_samples(1)


@pytest.mark.parametrize(("policy", "n_patches"), [("loop", 62), ("zero", 62), ("mask", 5)])
@pytest.mark.parametrize("duration_s", [5.0])
def test_short_file_keeps_its_valid_length(policy, n_patches, duration_s, write_wav, make_sound):
    backend = VggishBackend({"weights": "random", "short_audio": policy})
    item = backend.prepare(write_wav(make_sound(duration_s)))
    assert item.inputs.shape == (n_patches, 96, 64)
    assert item.n_valid == 5
    if policy == "zero":
        np.testing.assert_allclose(item.inputs[6:], np.log(0.01), rtol=1e-6)


def test_file_shorter_than_a_patch_gives_one_valid_patch(write_wav, make_sound):
    for policy, n_patches in (("loop", 62), ("zero", 62), ("mask", 1)):
        item = VggishBackend({"short_audio": policy}).prepare(write_wav(make_sound(0.3)))
        assert (len(item.inputs), item.n_valid) == (n_patches, 1)


def test_long_file_gives_62_patches(write_wav, make_sound):
    item = VggishBackend().prepare(write_wav(make_sound(63.0)))
    assert (item.inputs.shape, item.n_valid) == ((62, 96, 64), 62)


def test_network_shape_and_size():
    network = VggishConvolutions()
    assert sum(parameter.numel() for parameter in network.parameters()) == 4_499_712
    assert [key for key, _ in network.named_parameters()] == [f"{k}.{p}" for k in CONV_KEYS for p in ("weight", "bias")]
    assert tuple(f"features.{k}" for k in (0, 3, 6, 8, 11, 13)) == CONV_KEYS


def naive_vggish(patch: np.ndarray, state: dict[str, np.ndarray]) -> np.ndarray:
    """(96, 64) to (512, 6, 4): scipy correlations, one channel pair at a time, float64."""
    maps = patch[None].astype(np.float64)
    for key, pools in zip(CONV_KEYS, (True, True, False, True, False, True), strict=True):
        kernels, bias = state[f"{key}.weight"], state[f"{key}.bias"]
        maps = np.stack(
            [
                np.maximum(0, bias[o] + sum(scipy.signal.correlate2d(m, k, "same") for m, k in zip(maps, kernels[o])))  # noqa: B905
                for o in range(len(kernels))
            ]
        )
        if pools:
            n, h, w = maps.shape
            maps = maps.reshape(n, h // 2, 2, w // 2, 2).max(axis=(2, 4))
    return maps


def test_first_channels_equal_a_naive_computation():
    """The whole net in plain loops would take minutes, so every layer is cut to few channels."""
    rng = np.random.default_rng(0)
    network = VggishConvolutions()
    widths = [1, 3, 4, 3, 5, 4, 6]
    state = {}
    for index, key in enumerate(CONV_KEYS):
        shape = (widths[index + 1], widths[index], 3, 3)
        state[f"{key}.weight"] = rng.standard_normal(shape) / np.sqrt(9 * widths[index])
        state[f"{key}.bias"] = rng.standard_normal(widths[index + 1]) * 0.1
        layer = network.get_submodule(key)
        layer.weight.data = torch.from_numpy(state[f"{key}.weight"])
        layer.bias.data = torch.from_numpy(state[f"{key}.bias"])
    patch = rng.standard_normal((96, 64))
    with torch.inference_mode():
        ours = network(torch.from_numpy(patch)[None])[0].numpy()
    assert ours.shape == (6, 6, 4)
    np.testing.assert_allclose(ours, naive_vggish(patch, state), atol=1e-10)


def test_pooling_is_the_mean_over_time_and_mel_of_each_patch():
    feature = np.random.default_rng(0).random((62, 512, 6, 4), np.float32)
    pooled = VggishBackend().pool(feature)
    assert (pooled.shape, pooled.dtype) == ((62, 512), np.float32)
    np.testing.assert_allclose(pooled, feature.mean(axis=(2, 3)), rtol=1e-5)


def test_pooling_pads_masked_items_to_the_window():
    feature = np.ones((5, 512, 6, 4), np.float32)
    pooled = VggishBackend({"short_audio": "mask"}).pool(feature)
    assert pooled.shape == (62, 512)
    assert pooled[:5].all()
    assert not pooled[5:].any()


def test_backend_reads_published_weights_and_only_the_convolutions(tmp_path, monkeypatch):
    source = VggishConvolutions()
    content = source.state_dict() | {"embeddings.0.weight": torch.zeros(3), "pproc.pca_means": torch.zeros(2)}
    place_weights(content, tmp_path, monkeypatch)
    backend = VggishBackend({"engine": "torch"}, weights_dir=tmp_path)
    backend.load()
    patches = np.random.default_rng(0).standard_normal((2, 96, 64)).astype(np.float32)
    with torch.inference_mode():
        expected = source(torch.from_numpy(patches)).numpy()
    feature = backend.infer(patches)
    assert feature.shape == (2, 512, 6, 4)
    assert feature.min() >= 0
    np.testing.assert_allclose(feature, expected, rtol=1e-4, atol=1e-6)
    settings = backend.fingerprint().settings
    assert len(settings["weights"]["sha256"]["vggish-10086976.pth"]) == 64
    assert "auto" not in json.dumps(settings)


@pytest.mark.parametrize("damage", ["missing", "shape"])
def test_weights_that_do_not_fit_are_refused(damage, tmp_path, monkeypatch):
    content = dict(VggishConvolutions().state_dict())
    if damage == "missing":
        del content["features.8.bias"]
    else:
        content["features.8.bias"] = torch.zeros(7)
    place_weights(content, tmp_path, monkeypatch)
    with pytest.raises(WeightsError, match=r"features\.8\.bias"):
        VggishBackend(weights_dir=tmp_path).load()


def place_weights(content: dict[str, torch.Tensor], folder, monkeypatch) -> None:
    """Put a file where the published one would be, and let the table expect no particular checksum."""
    from vmnet_pipeline.backends import weights

    torch.save(content, folder / "vggish-10086976.pth")
    unchecked = weights.WeightFile("vggish-10086976.pth", weights.FileCheck())
    table = {"vggish": weights.WeightSet("vggish", "", "", "", (unchecked,))}
    monkeypatch.setattr(weights, "read_weight_table", lambda: table)


def test_bf16_keeps_the_pooled_direction(make_sound):
    """What lets `auto` take bf16 for this network: cosine of each pooled patch to f32 at least 0.999."""
    from vmnet_pipeline.backends.processor import has_bf16

    if not has_bf16():
        pytest.skip("the processor has no bf16")
    patches = cut_patches(make_sound(4.0))
    pooled = []
    for precision in ("f32", "bf16"):
        backend = VggishBackend({"weights": "random", "engine": "openvino", "precision": precision})
        backend.load()
        pooled.append(backend.pool(backend.infer(patches))[: len(patches)])
    f32, bf16 = pooled
    cosine = (f32 * bf16).sum(axis=1) / np.linalg.norm(f32, axis=1) / np.linalg.norm(bf16, axis=1)
    assert cosine.min() >= 0.999
    assert not np.array_equal(f32, bf16)


@pytest.mark.weights
def test_convolutions_equal_the_package(peers_dir):
    spec = importlib.util.spec_from_file_location("peer_vggish", peers_dir / "torchvggish" / "torchvggish.py")
    peer = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(peer)
    torch.manual_seed(0)
    theirs = peer.VGG(peer.make_layers(), postprocess=False).eval()
    ours = VggishConvolutions().eval()
    ours.load_state_dict(pick_state(theirs.state_dict()))
    patches = torch.randn(3, 96, 64)
    with torch.inference_mode():
        torch.testing.assert_close(ours(patches), theirs.features(patches[:, None]), rtol=1e-5, atol=1e-6)


@pytest.mark.weights
def test_front_end_equals_the_package(peers_dir, rich_sound):
    spec = importlib.util.spec_from_file_location("peer_mel", peers_dir / "torchvggish" / "mel_features.py")
    peer = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(peer)
    theirs = peer.log_mel_spectrogram(
        rich_sound,
        audio_sample_rate=16000,
        log_offset=0.01,
        window_length_secs=0.025,
        hop_length_secs=0.010,
        num_mel_bins=64,
        lower_edge_hertz=125,
        upper_edge_hertz=7500,
    )
    assert np.abs(vggish.measure_log_mel(rich_sound) - theirs).max() <= 1e-4
