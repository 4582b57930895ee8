"""EfficientNet: preprocessing, networks, weight files, whole backend."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from vmnet_pipeline.backends import efficientnet as module
from vmnet_pipeline.backends import weights
from vmnet_pipeline.backends.efficientnet import EfficientnetBackend, crop_and_resize
from vmnet_pipeline.backends.networks.efficientnet_lite import ConvNorm, EfficientNetLite, rename_state
from vmnet_pipeline.errors import ParameterError, WeightsError
from vmnet_pipeline.media.pixels import PICTURE_RECIPE

HEADS = {"b0": 1280, "b1": 1280, "b2": 1408, "b3": 1536, "b4": 1792, "b5": 2048, "b6": 2304, "b7": 2560}


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
    layer = ConvNorm(1, 1, kernel, size_px=size, stride=2, has_act=False).eval()
    torch.nn.init.ones_(layer.conv.weight)
    with torch.inference_mode():
        sums = layer(torch.ones(1, 1, size, size))[0, 0].numpy() * np.sqrt(1 + 1e-3)
    n_outputs = -(-size // 2)
    total = max(0, (n_outputs - 1) * 2 + kernel - size)
    before = total // 2
    row = [sum(0 <= 2 * k - before + j < size for j in range(kernel)) for k in range(n_outputs)]
    np.testing.assert_allclose(sums, np.outer(row, row), rtol=1e-5)


@pytest.mark.long
def test_lite0_equals_the_published_implementation(weights_dir, golden_dir):
    """Golden outputs: efficientnet-lite-pytorch under the same weights (tests/golden/make_feature_golden.py)."""
    network = EfficientnetBackend({}, weights_dir=weights_dir).build_network().eval().network
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
    assert base.settings["decoder"].endswith(PICTURE_RECIPE)
    others = [{"rate_hz": 2}, {"max_duration_s": 30}, {"engine": "torch"}, {"weights": "random"}]
    others += [{"model": "b0", "weights": "random"}]
    digests = {EfficientnetBackend(other, weights_dir=weights_dir).fingerprint().digest for other in others}
    assert len(digests | {base.digest}) == len(others) + 1


# --- B0-B7 of keras.applications


def test_every_member_of_the_family_is_known_with_its_size():
    for model, width in {"lite0": 1280, **HEADS}.items():
        backend = EfficientnetBackend({"model": model})
        assert backend.input_shape == (module.SIZES_PX[model], module.SIZES_PX[model], 3)
        assert backend.framework == ("torch" if model == "lite0" else "tensorflow")
        assert width >= 1280
    with pytest.raises(ParameterError, match="written in tensorflow"):
        EfficientnetBackend({"model": "b0", "engine": "torch", "weights": "random"}).fingerprint()


@pytest.fixture(scope="module")
def keras():
    module.import_tensorflow()
    import keras

    return keras


@pytest.fixture(scope="module")
def published_b0(keras, tmp_path_factory):
    """A file laid out as Keras publishes them: seeded weights, and the normalisation that comes with the real ones."""
    from vmnet_pipeline.backends.networks.efficientnet_keras import draw_weights

    path = tmp_path_factory.mktemp("keras") / "efficientnetb0_notop.weights.h5"
    whole = keras.applications.EfficientNetB0(include_top=False, weights=None, pooling="avg", input_shape=(224, 224, 3))
    draw_weights(whole, 0)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    whole.get_layer("normalization").set_weights([mean, std, np.array(0)])  # Keras's quirk: the deviation as variance
    save_legacy(whole, path.with_name("efficientnetb0_notop.h5"))
    return path.with_name("efficientnetb0_notop.h5")


def save_legacy(network, path) -> None:
    """In the layout of the published files, which `save_weights` no longer writes."""
    import h5py
    from keras.src.legacy.saving.legacy_h5_format import save_weights_to_hdf5_group

    with h5py.File(path, "w") as file:
        save_weights_to_hdf5_group(file, network)


def use_file(monkeypatch, path, model="b0") -> None:
    unchecked = weights.WeightFile(path.name, weights.FileCheck())
    table = {f"efficientnet-{model}": weights.WeightSet(f"efficientnet-{model}", "", "", "", (unchecked,))}
    monkeypatch.setattr(weights, "read_weight_table", lambda: table)


def make_pictures(size_px=224, n=2) -> np.ndarray:
    """Smooth and rough pictures, so that they differ in more than noise."""
    rng = np.random.default_rng(3)
    coarse = rng.integers(0, 256, (n, 4, 4, 3), np.uint8)
    return np.stack([np.asarray(Image.fromarray(picture).resize((size_px, size_px))) for picture in coarse])


def load_as_keras_does(keras, path, monkeypatch):
    """Keras's own model with `weights="imagenet"`, fed with our file instead of a download."""
    from keras.src.applications import efficientnet as theirs

    monkeypatch.setattr(theirs.file_utils, "get_file", lambda *_, **__: str(path))
    shape = (224, 224, 3)
    return keras.applications.EfficientNetB0(include_top=False, weights="imagenet", pooling="avg", input_shape=shape)


@pytest.mark.slow
def test_published_file_gives_what_keras_gives_on_raw_pictures(published_b0, keras, monkeypatch):
    """Holds the trap: Keras rescales once more by 1 / sqrt(std), only where it loads the ImageNet weights."""
    use_file(monkeypatch, published_b0)
    pictures = make_pictures()
    theirs = np.asarray(load_as_keras_does(keras, published_b0, monkeypatch)(pictures.astype(np.float32)))
    backend = EfficientnetBackend({"model": "b0"}, weights_dir=published_b0.parent)
    ours = np.asarray(backend.build_network()(pictures.astype(np.float32)))
    assert ours.shape == (2, 1280)
    assert np.abs(theirs[0] - theirs[1]).max() > 0.1 * np.abs(theirs).max()
    assert np.abs(ours - theirs).max() <= 1e-3 * np.abs(theirs).max()


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["openvino", "tensorflow"])
def test_engines_equal_the_keras_model(published_b0, keras, monkeypatch, tmp_path, engine):
    use_file(monkeypatch, published_b0)
    backend = EfficientnetBackend(
        {"model": "b0", "engine": engine, "precision": "f32"}, weights_dir=published_b0.parent
    )
    pictures = make_pictures()
    expected = np.asarray(backend.build_network()(pictures.astype(np.float32), training=False))
    backend.load()
    feature = backend.infer(pictures)
    assert feature.dtype == np.float32
    assert np.abs(feature - expected).max() <= 1e-3 * np.abs(expected).max()
    assert backend.pool(feature).shape == (1280,)


@pytest.mark.slow
def test_weights_of_another_member_are_refused(published_b0, keras, monkeypatch):
    use_file(monkeypatch, published_b0, "b1")
    with pytest.raises(WeightsError, match="does not fit"):
        EfficientnetBackend({"model": "b1"}, weights_dir=published_b0.parent).build_network()


@pytest.mark.long
def test_damaged_keras_file_is_a_weights_error(tmp_path, keras, monkeypatch):
    path = tmp_path / "efficientnetb0_notop.h5"
    path.write_bytes(b"not hdf5")
    use_file(monkeypatch, path)
    with pytest.raises(WeightsError, match="damaged"):
        EfficientnetBackend({"model": "b0"}, weights_dir=tmp_path).build_network()


@pytest.mark.long
def test_keras_set_up_for_another_framework_is_refused(keras, monkeypatch):
    from vmnet_pipeline.backends.networks.efficientnet_keras import build_network

    monkeypatch.setattr(keras.config, "image_data_format", lambda: "channels_first")
    with pytest.raises(ParameterError, match="channels_last"):
        build_network("b0", 224, None, 0)


@pytest.mark.slow
def test_random_weights_are_seeded_and_tell_pictures_apart(keras):
    pictures = make_pictures().astype(np.float32)
    first, again, other = (
        np.asarray(
            EfficientnetBackend({"model": "b0", "weights": "random", "random_seed": seed}).build_network()(pictures)
        )
        for seed in (1, 1, 2)
    )
    np.testing.assert_allclose(first, again, rtol=1e-3, atol=1e-3 * np.abs(first).max())
    assert np.abs(first - other).max() > 0.1 * np.abs(first).max()
    assert np.abs(first[0] - first[1]).max() > 0.1 * np.abs(first).max()


@pytest.mark.slow
def test_b5_gives_2048_values_per_picture(keras, tmp_path):
    path = write_video(tmp_path / "v.mp4", n_frames=20, rate_hz=10)
    backend = EfficientnetBackend({"model": "b5", "weights": "random"}, weights_dir=tmp_path)
    backend.load()
    item = backend.prepare(path)
    assert item.inputs.shape == (2, 456, 456, 3)
    feature = backend.infer(item.inputs)
    assert (feature.shape, feature.dtype) == ((2, 2048), np.float32)
    assert np.isfinite(feature).all()


@pytest.mark.weights
@pytest.mark.parametrize("model", ["b0", "b5"])
def test_network_equals_that_of_transformers(model, keras, peers_dir, monkeypatch):
    """A second implementation, in torch, under the same weights."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(peers_dir)])
    transformers = pytest.importorskip("transformers.models.efficientnet")
    from transformers.models.efficientnet.modeling_efficientnet import EfficientNetConfig, EfficientNetModel

    assert transformers
    sizes = {"b0": (1.0, 1.0, 1280), "b5": (1.6, 2.2, 2048)}
    width, depth, hidden = sizes[model]
    config = EfficientNetConfig(
        width_coefficient=width,
        depth_coefficient=depth,
        hidden_dim=hidden,
        depthwise_padding=[13, 27] if model == "b5" else [],  # strided blocks whose input has an odd side
    )
    peer = EfficientNetModel(config).eval()
    from vmnet_pipeline.backends.networks.efficientnet_keras import _draw_pictures, build_network

    ours = build_network(model, module.SIZES_PX[model], None, 0)
    copy_to_transformers(ours, peer)
    # Of the kind that the random weights were fitted to: on others a random network is chaotic, and rounding grows.
    pictures = _draw_pictures(np.random.default_rng(9), module.SIZES_PX[model])[:1]
    with torch.inference_mode():
        theirs = peer(torch.from_numpy(pictures).permute(0, 3, 1, 2)).pooler_output.flatten(1).numpy()
    expected = np.asarray(ours(pictures, training=False))
    assert np.abs(theirs - expected).max() <= 1e-3 * np.abs(expected).max()


def copy_to_transformers(source, peer) -> None:
    """Both list their layers in the order of computation; shapes and kinds have to agree one by one."""
    kinds = {"Conv2D": "conv", "DepthwiseConv2D": "conv", "BatchNormalization": "norm"}
    ours = [(kinds[type(layer).__name__], layer) for layer in order_layers(source) if type(layer).__name__ in kinds]
    theirs = [m for m in peer.modules() if isinstance(m, (torch.nn.Conv2d, torch.nn.BatchNorm2d))]
    assert len(ours) == len(theirs)
    for (kind, layer), target in zip(ours, theirs, strict=True):
        arrays = [torch.from_numpy(array.copy()) for array in layer.get_weights()]
        if kind == "conv":
            axes = (2, 3, 0, 1) if type(layer).__name__ == "DepthwiseConv2D" else (3, 2, 0, 1)
            arrays[0] = arrays[0].permute(*axes)
            names = ["weight", "bias"]
        else:
            names = ["weight", "bias", "running_mean", "running_var"]
            target.eps = layer.epsilon
        for name, array in zip(names, arrays, strict=False):
            assert getattr(target, name).shape == array.shape
            getattr(target, name).data = array


def order_layers(network):
    """Stem, blocks, top, each block as transformers lists it: expansion, depthwise, gate, projection."""
    return [layer for layer in network.layers if layer.get_weights()]


@pytest.mark.weights
def test_lite0_equals_the_package_live(peers_dir, weights_dir, monkeypatch):
    monkeypatch.setattr(sys, "path", [str(peers_dir), *sys.path])
    from efficientnet_lite_pytorch import EfficientNet as PeerNetwork

    peer = PeerNetwork.from_name("efficientnet-lite0").eval()
    content = torch.load(weights_dir / "efficientnet-lite0-57934424.pth", weights_only=True)
    peer.load_state_dict(content)
    ours = EfficientNetLite().eval()
    ours.load_state_dict(rename_state(content))
    pictures = torch.randn(2, 3, 224, 224)
    with torch.inference_mode():
        torch.testing.assert_close(ours(pictures), peer.extract_features(pictures).mean(dim=(2, 3)))
