"""EfficientNet: preprocessing, networks, weight layouts, whole backend."""

from __future__ import annotations

import json
import sys

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from vmnet_pipeline.backends import efficientnet as module
from vmnet_pipeline.backends.efficientnet import EfficientnetBackend, crop_and_resize, read_keras_file
from vmnet_pipeline.backends.networks.efficientnet import VARIANTS, ConvNorm, EfficientNet
from vmnet_pipeline.backends.networks.efficientnet_weights import read_keras_state, rename_torch_state
from vmnet_pipeline.errors import WeightsError

HEADS = {"lite0": 1280, "b0": 1280, "b1": 1280, "b2": 1408, "b3": 1536, "b4": 1792, "b5": 2048, "b6": 2304, "b7": 2560}
# Trainable and moving values of Keras's models without top, less the 7 of its normalisation layer.
PARAMETERS = {"b0": 4_049_571 - 7, "b5": 28_513_527 - 7, "b7": 64_097_687 - 7}


def count_values(network: torch.nn.Module) -> int:
    return sum(t.numel() for name, t in network.state_dict().items() if not name.endswith("num_batches_tracked"))


@pytest.mark.parametrize("model", list(HEADS))
def test_head_length_and_input_side(model):
    assert VARIANTS[model].head_channels == HEADS[model]
    assert VARIANTS[model].size_px == module.SIZES_PX[model]


@pytest.mark.parametrize("model", list(PARAMETERS))
def test_parameter_counts_of_keras(model):
    with torch.device("meta"):
        assert count_values(EfficientNet(VARIANTS[model])) == PARAMETERS[model]


def test_crop_takes_the_centre_with_padding_32():
    """A white centre of the expected size on black: all of it must be seen, and nothing else."""
    size, (height, width) = 224, (480, 854)
    side = int(224 / 256 * 480)
    picture = np.zeros((height, width, 3), np.uint8)
    top, left = (height - side + 1) // 2, (width - side + 1) // 2
    picture[top : top + side, left : left + side] = 255
    assert crop_and_resize(picture, size).min() == 255
    picture[top, left] = 0
    assert crop_and_resize(picture, size)[0, 0].max() < 255


def test_crop_ratio_of_b5():
    """456 / 488 of the shorter side, as published."""
    picture = np.tile(np.arange(976, dtype=np.float64)[:, None, None] / 976 * 255, (1, 1200, 3)).astype(np.uint8)
    rows = crop_and_resize(picture, 456)[:, 228, 0].astype(int)
    assert abs(rows[0] - 32 / 976 * 255) < 2
    assert abs(rows[-1] - (1 - 32 / 976) * 255) < 2


@pytest.mark.parametrize("shape", [(1, 1), (2, 900), (100, 80), (224, 224)])
def test_small_and_odd_pictures(shape):
    picture = np.full((*shape, 3), 77, np.uint8)
    result = crop_and_resize(picture, 224)
    assert result.shape == (224, 224, 3)
    assert (result == 77).all()


def test_resize_is_pillow_bicubic():
    picture = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
    expected = Image.fromarray(picture).crop((69, 19, 331, 281)).resize((224, 224), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(crop_and_resize(picture, 224), np.asarray(expected))


@pytest.mark.parametrize(
    ("model", "expected"), [("lite0", [1.0, 1.0, 1.0]), ("b5", [0.515 / 0.229, 0.544 / 0.224, 0.594 / 0.225])]
)
def test_normalisation(model, expected):
    mean, std = module.get_normalization(model)
    np.testing.assert_allclose((255 - np.array(mean)) / np.array(std), expected, rtol=1e-12)


@pytest.mark.parametrize(("size", "kernel"), [(224, 3), (113, 3), (57, 5), (56, 5)])
def test_strided_padding_is_that_of_tensorflow(size, kernel):
    """As little as needed, the odd pixel at the end: checked on one row by counting ones under the kernel."""
    layer = ConvNorm(1, 1, kernel, size_px=size, stride=2).eval()
    torch.nn.init.ones_(layer.conv.weight)
    with torch.inference_mode():
        sums = layer(torch.ones(1, 1, size, size))[0, 0].numpy() * np.sqrt(1 + 1e-3)
    n_outputs = -(-size // 2)
    total = max(0, (n_outputs - 1) * 2 + kernel - size)
    before = total // 2
    row = [sum(0 <= 2 * k - before + j < size for j in range(kernel)) for k in range(n_outputs)]
    np.testing.assert_allclose(sums, np.outer(row, row), rtol=1e-5)


def test_lite0_equals_the_published_implementation(weights_dir, golden_dir):
    """Golden outputs: efficientnet-lite-pytorch under the same weights (tests/golden/make_feature_golden.py)."""
    network = EfficientnetBackend({"engine": "torch"}, weights_dir=weights_dir).build_network().eval().network
    pictures = np.random.default_rng(8).standard_normal((2, 3, 224, 224)).astype(np.float32)
    with torch.inference_mode():
        ours = network(torch.from_numpy(pictures)).numpy()
    theirs = np.load(golden_dir / "efficientnet_lite0.npz")["feature"]
    assert ours.shape == theirs.shape == (2, 1280)
    assert np.abs(ours - theirs).max() <= 1e-4 * np.abs(theirs).max()


def test_backend_from_pictures_to_feature(weights_dir):
    backend = EfficientnetBackend({"n_threads": 2}, weights_dir=weights_dir)
    backend.load()
    pictures = np.random.default_rng(0).integers(0, 256, (3, 224, 224, 3), np.uint8)
    feature = backend.infer(pictures)
    assert (feature.shape, feature.dtype) == ((3, 1280), np.float32)
    assert np.isfinite(feature).all()
    network = backend.build_network().eval()
    with torch.inference_mode():
        normalised = (torch.from_numpy(pictures).float().permute(0, 3, 1, 2) - 127) / 128
        expected = network.network(normalised).numpy()
    assert np.abs(feature - expected).max() <= 1e-4 * np.abs(expected).max()
    np.testing.assert_allclose(backend.pool(feature), feature.mean(axis=0), rtol=1e-5, atol=1e-6)


def test_prepare_gives_one_picture_per_second(tmp_path):
    path = write_video(tmp_path / "v.mp4", n_frames=30, rate_hz=10)
    backend = EfficientnetBackend({"weights": "random"})
    item = backend.prepare(path)
    assert (item.inputs.shape, item.inputs.dtype, item.n_valid) == ((3, 224, 224, 3), np.uint8, 3)
    assert len(EfficientnetBackend({"rate_hz": 2.0}).prepare(path).inputs) == 6
    assert len(EfficientnetBackend({"max_duration_s": 2.0}).prepare(path).inputs) == 2


def write_video(path, n_frames: int, rate_hz: int) -> str:
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=rate_hz)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for index in range(n_frames):
            picture = np.full((240, 320, 3), 8 * index, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode())
    return str(path)


def test_fingerprint_tells_everything_that_changes_numbers(weights_dir):
    base = EfficientnetBackend({}, weights_dir=weights_dir).fingerprint()
    assert "auto" not in json.dumps(base.settings)
    assert base.settings["precision"] == "f32"
    others = [{"rate_hz": 2}, {"max_duration_s": 30}, {"engine": "torch"}, {"weights": "random"}]
    others += [{"model": "b0", "weights": "random"}]
    digests = {EfficientnetBackend(other, weights_dir=weights_dir).fingerprint().digest for other in others}
    assert len(digests | {base.digest}) == len(others) + 1


def save_keras_like(network: EfficientNet, variant, path) -> None:
    """An HDF5 file laid out as Keras's published ones, from a network of ours."""
    from vmnet_pipeline.backends.networks import efficientnet_weights as layouts

    state = {key: value.numpy() for key, value in network.state_dict().items()}
    with h5py.File(path, "w") as file:
        for place, layer in layouts._name_keras_convs(variant).items():
            axes, kind = ((2, 3, 0, 1), "depthwise_kernel") if layer.endswith("dwconv") else ((2, 3, 1, 0), "kernel")
            file[f"{layer}/{layer}/{kind}:0"] = state[f"{place}.weight"].transpose(axes)
            if f"{place}.bias" in state:
                file[f"{layer}/{layer}/bias:0"] = state[f"{place}.bias"]
        for place, layer in layouts._name_keras_norms(variant).items():
            for ours, theirs in layouts.NORM_KINDS.items():
                file[f"{layer}/{layer}/{theirs}:0"] = state[f"{place}.{ours}"]


def test_keras_layout_survives_a_round_trip(tmp_path):
    torch.manual_seed(0)
    variant = VARIANTS["b0"]
    network = EfficientNet(variant)
    save_keras_like(network, variant, tmp_path / "b0.h5")
    state = read_keras_state(variant, read_keras_file(tmp_path / "b0.h5"))
    expected = {key: value for key, value in network.state_dict().items() if not key.endswith("num_batches_tracked")}
    assert set(state) == set(expected)
    assert all(torch.equal(state[key], expected[key]) for key in expected)


def test_backend_refuses_the_weights_of_another_member(tmp_path, monkeypatch):
    from vmnet_pipeline.backends import weights

    save_keras_like(EfficientNet(VARIANTS["b0"]), VARIANTS["b0"], tmp_path / "efficientnetb1_notop.h5")
    unchecked = weights.WeightFile("efficientnetb1_notop.h5", weights.FileCheck())
    table = {"efficientnet-b1": weights.WeightSet("efficientnet-b1", "", "", "", (unchecked,))}
    monkeypatch.setattr(weights, "read_weight_table", lambda: table)
    with pytest.raises(WeightsError, match="missing"):
        EfficientnetBackend({"model": "b1"}, weights_dir=tmp_path).load()


def test_damaged_keras_file_is_a_weights_error(tmp_path):
    (tmp_path / "x.h5").write_bytes(b"not hdf5")
    with pytest.raises(WeightsError, match="HDF5"):
        read_keras_file(tmp_path / "x.h5")


def check_against_keras(model: str, tmp_path, *, size_px: int) -> None:
    """Same weights, same tensors after preprocessing: ours must give what Keras's model gives."""
    import keras
    from keras.src.legacy.saving.legacy_h5_format import save_weights_to_hdf5_group

    keras.utils.set_random_seed(0)
    factory = getattr(keras.applications, f"EfficientNet{model.upper()}")
    # One shape for all: the body is convolutional, so that B5 need not run at its full size here.
    peer = factory(include_top=False, weights=None, pooling="avg", input_shape=(size_px, size_px, 3))
    rng = np.random.default_rng(0)
    for layer in peer.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            n = len(layer.get_weights()[0])
            # Small gains: otherwise signals explode over the depth, and rounding with them.
            gamma, variance = rng.uniform(0.4, 0.7, n), rng.uniform(0.8, 1.2, n)
            layer.set_weights([gamma, rng.normal(0, 0.1, n), rng.normal(0, 0.1, n), variance])
    with h5py.File(tmp_path / "weights.h5", "w") as file:
        save_weights_to_hdf5_group(file, peer)
    variant = type(VARIANTS[model])(VARIANTS[model].width, VARIANTS[model].depth, size_px)
    network = EfficientNet(variant).eval()
    state = read_keras_state(variant, read_keras_file(tmp_path / "weights.h5"))
    missing, unexpected = network.load_state_dict(state, strict=False)
    assert not unexpected
    assert all(name.endswith("num_batches_tracked") for name in missing)
    pictures = rng.standard_normal((2, size_px, size_px, 3)).astype(np.float32)
    body = keras.Model(peer.get_layer("stem_conv_pad").input, peer.output)
    theirs = np.asarray(body(pictures, training=False))
    with torch.inference_mode():
        ours = network(torch.from_numpy(pictures).permute(0, 3, 1, 2)).numpy()
    assert ours.shape == (2, variant.head_channels)
    assert np.abs(theirs).max() > 1e-3
    assert np.abs(ours - theirs).max() <= 1e-4 * np.abs(theirs).max()


@pytest.mark.slow
@pytest.mark.parametrize(("model", "size_px"), [("b0", 224), ("b3", 300), ("b5", 456)])
def test_networks_equal_those_of_keras(model, size_px, tmp_path):
    check_against_keras(model, tmp_path, size_px=size_px)


@pytest.mark.weights
def test_lite0_equals_the_package_live(peers_dir, weights_dir, monkeypatch):
    monkeypatch.setattr(sys, "path", [str(peers_dir), *sys.path])
    from efficientnet_lite_pytorch import EfficientNet as PeerNetwork

    peer = PeerNetwork.from_name("efficientnet-lite0").eval()
    content = torch.load(weights_dir / "efficientnet-lite0-57934424.pth", weights_only=True)
    peer.load_state_dict(content)
    ours = EfficientNet(VARIANTS["lite0"]).eval()
    ours.load_state_dict(rename_torch_state(content))
    pictures = torch.randn(2, 3, 224, 224)
    with torch.inference_mode():
        torch.testing.assert_close(ours(pictures), peer.extract_features(pictures).mean(dim=(2, 3)))
