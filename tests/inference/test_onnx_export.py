"""Exported towers give what the network gives, in another runtime."""

import json

import numpy as np
import onnxruntime
import pytest
import torch

from vmnet_pipeline import Embedder
from vmnet_pipeline.errors import CheckpointError
from vmnet_pipeline.inference import onnx_export
from vmnet_pipeline.models.checkpoints import Checkpoint, digest_checkpoint
from vmnet_pipeline.models.factory import build_model
from vmnet_pipeline.types import Fingerprint

pytestmark = pytest.mark.long
SHAPES = {
    "vggish": ([12, 5], [7]), "musicnn": ([6], [7]), "canonical": ([6], [7]),
    "sequence": ([20, 6], [15, 7]), "transformer": ([20, 6], [15, 7]),
}  # fmt: skip
WITH_STEPS = ("sequence", "transformer")


def make_checkpoint(tower, n_members=1):
    """Random weights; buffers too, so that no scaler, projection or running mean is a plain 0 or 1."""
    music_shape, video_shape = SHAPES[tower]
    config = {
        "music_tower": tower, "video_tower": tower, "music_shape": music_shape, "video_shape": video_shape,
        "embedding_dim": 8, "dropout": 0.1, "standardise": True, "n_members": n_members,
    }  # fmt: skip
    torch.manual_seed(1)
    model = build_model(**config)
    tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for name, buffer in model.named_buffers():
        if buffer.is_floating_point():
            tensors[name] = torch.rand_like(buffer) + 0.5
        if name.endswith("radius"):
            tensors[name] = buffer + 9.0
    fingerprint = Fingerprint("musicnn", {"layer": "penultimate"})
    return Checkpoint(config, tensors, {"audio": fingerprint})


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    """Each checkpoint is exported once."""
    made = {}

    def get(tower, n_members=1):
        if (tower, n_members) not in made:
            checkpoint = make_checkpoint(tower, n_members)
            files = onnx_export.export_towers(checkpoint, tmp_path_factory.mktemp(tower))
            made[tower, n_members] = checkpoint, files
        return made[tower, n_members]

    return get


def draw_items(shape, n, lengths=None):
    rng = np.random.default_rng(n)
    if lengths is None:
        return rng.normal(size=(n, *shape)).astype(np.float32)
    return [rng.normal(size=(length, shape[1])).astype(np.float32) for length in lengths]


def run_file(path, items):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    if not isinstance(items, list):
        return session.run(["embedding"], {"features": items})[0]
    mask = np.arange(max(map(len, items))) < np.array([len(item) for item in items])[:, None]
    features = np.full((*mask.shape, items[0].shape[1]), 7.0, np.float32)  # what pads has no meaning
    features[mask] = np.concatenate(items)
    return session.run(["embedding"], {"features": features, "mask": mask})[0]


@pytest.mark.parametrize(
    ("tower", "n_members"),
    [
        ("vggish", 1),
        ("musicnn", 2),
        ("canonical", 1),
        ("sequence", 1),
        pytest.param("transformer", 1, marks=pytest.mark.slow),
        pytest.param("sequence", 2, marks=pytest.mark.slow),
    ],
)
def test_files_give_what_the_network_gives(export, tower, n_members):
    checkpoint, files = export(tower, n_members)
    embedder, has_steps = Embedder(checkpoint), tower in WITH_STEPS
    for place, (side, path) in enumerate(files.items()):
        for n in (1, 2, 7):
            lengths = [1 + (3 * i) % 11 for i in range(n)] if has_steps else None
            items = draw_items(SHAPES[tower][place], n, lengths)
            x = [items, None] if side == "music" else [None, items]
            expected = embedder(x, pooled=not has_steps)[place]
            np.testing.assert_allclose(run_file(path, items), expected, atol=1e-5, rtol=0)
    assert sorted(path.name for path in files["music"].parent.iterdir()) == ["music.onnx", "video.onnx"]


def test_a_file_says_what_it_takes_and_tells_no_places(export):
    checkpoint, files = export("musicnn", 2)
    path = files["music"]
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    told = session.get_modelmeta().custom_metadata_map
    assert told["vmnet.checkpoint"] == digest_checkpoint(checkpoint)
    assert (told["vmnet.side"], told["vmnet.backend"]) == ("music", "musicnn")
    assert json.loads(told["vmnet.backend_settings"]) == {"layer": "penultimate"}
    assert "(items, 6) float32" in told["vmnet.features"]
    assert [(item.name, item.shape) for item in session.get_inputs()] == [("features", ["items", 6])]
    assert b".py" not in path.read_bytes()


def test_a_file_that_computes_something_else_is_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_export, "TOLERANCE", -1.0)
    with pytest.raises(CheckpointError, match="exported music tower differs by"):
        onnx_export.export_towers(make_checkpoint("musicnn"), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_missing_packages_are_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    with pytest.raises(CheckpointError, match=r"onnxscript.*vmnet-pipeline\[onnx\]"):
        onnx_export.export_towers(make_checkpoint("musicnn"), tmp_path)
