"""The VGG models of musicnn: against plain numpy, and against the graphs in the package where it is installed."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from vmnet_pipeline.backends.musicnn import MusicnnBackend, cut_patches
from vmnet_pipeline.backends.musicnn_tags import MAGNATAGATUNE_TAGS, TAGS
from vmnet_pipeline.backends.networks.musicnn import read_state
from vmnet_pipeline.backends.networks.musicnn_vgg import POOLS, POOLS_OF_MSD_VGG, MusicnnVggNetwork

EPS = 1e-3


def draw_variables(seed: int = 0) -> dict[str, np.ndarray]:
    """Everything that the checkpoints of the package hold but what the optimiser has, with their names and shapes."""
    rng = np.random.default_rng(seed)
    variables = {"dense/kernel": rng.normal(0, 0.05, (256, 50)), "dense/bias": rng.normal(0, 0.1, 50)}
    for number in range(6):
        name, n = f"batch_normalization_{number}" if number else "batch_normalization", 128 if number else 1
        variables[f"{name}/gamma"] = rng.uniform(0.5, 1.5, n)
        variables[f"{name}/beta"] = rng.normal(0, 0.3, n)
        variables[f"{name}/moving_mean"] = rng.normal(0, 0.3, n)
        variables[f"{name}/moving_variance"] = rng.uniform(0.3, 2.0, n)
        if number:
            n_in = 1 if number == 1 else 128
            variables[f"{number}CNN/kernel"] = rng.normal(0, np.sqrt(2 / (9 * n_in)), (3, 3, n_in, 128))
            variables[f"{number}CNN/bias"] = rng.normal(0, 0.1, 128)
    return {name: value.astype(np.float32) for name, value in variables.items()}


def run_plainly(v: dict[str, np.ndarray], patches: np.ndarray, pools) -> tuple[np.ndarray, np.ndarray]:
    """(n, 187, 96) to pool5 flattened as the package does, and tags; channels last, in double precision."""

    def norm(x, name):
        scaled = (x - v[f"{name}/moving_mean"]) / np.sqrt(v[f"{name}/moving_variance"] + EPS)
        return scaled * v[f"{name}/gamma"] + v[f"{name}/beta"]

    x = norm(patches[..., None].astype(np.float64), "batch_normalization")
    for number, (window, stride) in enumerate(pools, start=1):
        padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        views = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))  # (n, T, F, C, 3, 3)
        z = np.einsum("ntfckl,klco->ntfo", views, v[f"{number}CNN/kernel"], optimize=True) + v[f"{number}CNN/bias"]
        z = norm(np.maximum(z, 0), f"batch_normalization_{number}")
        parts = np.lib.stride_tricks.sliding_window_view(z, window, axis=(1, 2))[:, :: stride[0], :: stride[1]]
        x = parts.max(axis=(-2, -1))
    flat = x.reshape(len(x), -1)
    return flat, 1 / (1 + np.exp(-(flat @ v["dense/kernel"] + v["dense/bias"])))


@pytest.mark.parametrize("pools", [POOLS, POOLS_OF_MSD_VGG], ids=["MTT", "MSD"])
def test_network_is_that_of_plain_numpy(pools):
    variables = draw_variables()
    patches = np.random.default_rng(7).uniform(0, 5, (1, 187, 96)).astype(np.float32)
    penultimate, tags = run_plainly(variables, patches, pools)
    for layer, expected in (("penultimate", penultimate), ("taggram", tags)):
        network = MusicnnVggNetwork(layer, pools).eval()
        network.load_state_dict(read_state(network, variables), strict=False)
        with torch.inference_mode():
            found = network(torch.from_numpy(patches)).numpy()
        assert found.shape == expected.shape == (1, 256 if layer == "penultimate" else 50)
        np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def test_all_variables_are_taken():
    network = MusicnnVggNetwork()
    state = read_state(network, draw_variables())
    ours = {name for name in network.state_dict() if not name.endswith("num_batches_tracked")}
    assert state.keys() == ours
    assert {f"{name}/{part}" for name, part in (key.rsplit("/", 1) for key in draw_variables())} == {
        key for key in draw_variables() if key.rsplit("/", 1)[0] in network.variables()
    }


def test_engines_agree(tmp_path):
    patches = np.random.default_rng(7).uniform(0, 5, (3, 187, 96)).astype(np.float32)
    outputs = []
    for engine in ("torch", "openvino"):
        params = {"model": "MTT_vgg", "weights": "random", "engine": engine, "precision": "f32", "n_threads": 1}
        backend = MusicnnBackend(params, weights_dir=tmp_path)
        backend.load()
        outputs.append(backend.infer(patches))
    assert outputs[0].shape == (3, 256)
    np.testing.assert_allclose(*outputs, atol=1e-4 * np.abs(outputs[0]).max())


def test_fingerprints_differ_where_numbers_do():
    def digest(**params):
        return MusicnnBackend({"weights": "random", **params}).fingerprint().digest

    digests = [digest(model="MSD_vgg"), digest(model="MTT_vgg"), digest(model="MSD_vgg", layer="taggram")]
    digests += [digest(model="MSD_vgg", vgg_pooling="package"), digest()]
    assert len(set(digests)) == 5
    assert digest(vgg_pooling="package") == digest()  # of no effect on the other models
    assert digest(model="MTT_vgg", vgg_pooling="package") == digest(model="MTT_vgg")


@pytest.mark.parametrize("layer", ["max_pool", "mean_pool", "mean_max_add"])
def test_a_layer_that_it_does_not_have_is_refused(layer):
    with pytest.raises(ValidationError, match=f"model MTT_vgg has no layer {layer}; choose penultimate or taggram"):
        MusicnnBackend({"model": "MTT_vgg", "layer": layer})


def test_its_tags_have_names():
    assert TAGS["MTT_vgg"] is MAGNATAGATUNE_TAGS
    assert len(TAGS["MSD_vgg"]) == 50


@pytest.mark.process
@pytest.mark.weights
@pytest.mark.parametrize("model", ["MSD_vgg", "MTT_vgg"])
@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_network_equals_the_original_graph_live(model, engine, peers_dir, golden_dir, tmp_path, rich_sound):
    from vmnet_pipeline.backends import weights

    patches = cut_patches(rich_sound)
    np.save(tmp_path / "patches.npy", patches)
    command = [sys.executable, str(golden_dir / "original_musicnn.py")]
    command += [str(peers_dir / "musicnn" / model), str(tmp_path / "patches.npy"), str(tmp_path / "out.npz")]
    subprocess.run(command, check=True, capture_output=True)
    original = np.load(tmp_path / "out.npz")
    folder = tmp_path / "weights" / model
    folder.parent.mkdir()
    folder.symlink_to(peers_dir / "musicnn" / model)
    assert weights.resolve_weights(model, tmp_path / "weights").paths
    for layer in ("penultimate", "taggram"):
        params = {"model": model, "layer": layer, "engine": engine, "precision": "f32"}
        backend = MusicnnBackend(params, weights_dir=tmp_path / "weights")
        backend.load()
        theirs = original[layer]
        assert np.abs(backend.infer(patches) - theirs).max() <= 1e-4 * np.abs(theirs).max()
