"""A variant with two backends a side from stored features to recommendations, with the project's own catalog."""

from __future__ import annotations

import json
import logging
import wave
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from kedro.config import OmegaConfigLoader
from kedro.io import DataCatalog
from kedro.runner import SequentialRunner

from vmnet_pipeline import Embedder
from vmnet_pipeline.backends.registry import make_backend
from vmnet_pipeline.cli import cli
from vmnet_pipeline.errors import CheckpointError, ParameterError
from vmnet_pipeline.features.store import FeatureChunk, FeatureResult, FeatureRow, FeatureStore
from vmnet_pipeline.inference.onnx_export import export_towers
from vmnet_pipeline.ingestion.schemas import MANIFEST_COLUMNS
from vmnet_pipeline.models.checkpoints import load_checkpoint
from vmnet_pipeline.pairs.packing import read_pairs
from vmnet_pipeline.params import EmbedParams, EvaluateParams, IndexParams, SplitParams, TrainParams
from vmnet_pipeline.pipeline_registry import register_pipelines
from vmnet_pipeline.pipelines.variants import read_variants
from vmnet_pipeline.search.index_files import load_index
from vmnet_pipeline.settings import CONFIG_LOADER_ARGS

pytestmark = pytest.mark.process

ROOT = Path(__file__).parents[2]
IDS = [f"{i:03d}" for i in range(60)]
LACKING, FAILED = IDS[1::2], IDS[0]  # of the descriptors of the frames; of musicnn
BACKENDS = {
    "musicnn": {"backend": "musicnn", "weights": "random", "max_duration_s": 6.0, "engine": "torch"},
    "descriptors_audio": {"backend": "descriptors_audio"},
    "efficientnet": {"backend": "efficientnet", "weights": "random", "engine": "torch"},
    "descriptors_video": {"backend": "descriptors_video"},
}
SHAPES = {"musicnn": (3, 200), "descriptors_audio": (47,), "efficientnet": (4, 1280), "descriptors_video": (31,)}
VARIANTS = {
    "fused": {"music": ["musicnn", "descriptors_audio"], "video": ["efficientnet", "descriptors_video"]},
    "listed": {"music": ["musicnn"], "video": ["efficientnet"]},
}
MODELS = {
    "embed": EmbedParams, "index": IndexParams, "split": SplitParams, "train": TrainParams, "evaluate": EvaluateParams,
}  # fmt: skip
FUSED = Path("data/06_models/toy/fused/checkpoint")


def params_of(name):
    return {"weights_dir": "weights", **BACKENDS[name]}


@pytest.fixture
def collection(tmp_path, monkeypatch):
    """Features of four backends; half of the items have no descriptors of their frames."""
    monkeypatch.chdir(tmp_path)
    shared = np.random.default_rng(0).normal(size=(len(IDS), 4))
    for name, shape in SHAPES.items():
        rng = np.random.default_rng(shape[-1])
        values = shared @ rng.normal(size=(4, shape[-1]))
        results = []
        for item_id, own in zip(IDS, values, strict=True):
            if name == "descriptors_video" and item_id in LACKING:
                continue
            if (name, item_id) == ("musicnn", FAILED):
                results.append(FeatureResult(FeatureRow(item_id, "failed", "s", reason="timed_out"), None))
                continue
            array = (own + 0.5 * rng.normal(size=shape)).astype(np.float32)
            results.append(FeatureResult(FeatureRow(item_id, "done", "s"), array))
        store = FeatureStore(f"data/04_feature/toy/{name}")
        store.write(FeatureChunk(make_backend(params_of(name)).fingerprint(), tuple(results)))
    write_collection()
    return tmp_path


def write_collection():
    texts = [name for name, dtype in MANIFEST_COLUMNS.items() if dtype == "str"]
    rows = [{"id": i, "status": "ok", "group": i, "audio_duration_s": 9.0, "video_duration_s": 9.0} for i in IDS]
    table = pd.DataFrame(rows, columns=list(MANIFEST_COLUMNS))
    table[texts] = table[texts].astype("object").fillna("")
    place = Path("data/02_intermediate/toy/manifest.parquet")
    place.parent.mkdir(parents=True)
    table.astype(MANIFEST_COLUMNS).to_parquet(place)
    Path("data/05_model_input/toy").mkdir(parents=True)
    for name, ids in (("train", IDS[:36]), ("val", IDS[36:46]), ("test", IDS[46:])):
        Path(f"data/05_model_input/toy/{name}.csv").write_text("\n".join(["id", *ids]) + "\n")
    Path("tags.csv").write_text("id,title\n001,Dawn\n")


def run(*names, variant="fused", **settings):
    given = {"collection": "toy", "metadata": "tags.csv", **settings.pop("runtime", {})}
    loader = OmegaConfigLoader(
        str(ROOT / "conf"), base_env="base", default_run_env="local", runtime_params=given,
        custom_resolvers=CONFIG_LOADER_ARGS["custom_resolvers"],
    )  # fmt: skip
    catalog = DataCatalog.from_config(loader["catalog"])
    train = {"epochs": 2, "batch_size": 8, "device": "cpu", "n_threads": 1, "seed": 1, **settings}
    parameters = loader["parameters"] | {name: params_of(name) for name in BACKENDS} | {"train": train}
    for name, value in parameters.items():
        catalog[f"params:{name}"] = MODELS[name].model_validate(value) if name in MODELS else value
    pipelines = register_pipelines(read_variants({"variants": VARIANTS, "variant": variant}))
    SequentialRunner().run(sum((pipelines[name] for name in names[1:]), pipelines[names[0]]), catalog)


def train(variant="fused", **settings):
    """Only packing and training, whose inputs are here."""
    run("train", variant=variant, **settings)
    return load_checkpoint(Path(f"data/06_models/toy/{variant}/checkpoint"))


def write_sound(path):
    samples = 8000 * np.random.default_rng(0).standard_normal(16_000 * 7)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(samples.clip(-32768, 32767).astype("<i2").tobytes())


def test_items_that_lack_one_backend_are_left_out_and_it_is_named(collection, caplog):
    with caplog.at_level(logging.WARNING, logger="vmnet_pipeline"):
        checkpoint = train()
    pairs = read_pairs(Path("data/05_model_input/toy/pairs_fused"))
    assert [*pairs.ids] == IDS[2::2]
    assert pairs.left_out == {FAILED: ("musicnn",)} | dict.fromkeys(LACKING, ("descriptors_video",))
    assert "30 id(s) of the split have no descriptors_video features and are skipped: ['001'" in caplog.text
    assert "1 id(s) of the split have no musicnn features and are skipped: ['000']" in caplog.text
    assert (pairs.music.shape, pairs.video.shape) == ((29, 247), (29, 1311))
    stores = [FeatureStore(f"data/04_feature/toy/{name}") for name in ("musicnn", "descriptors_audio")]
    wanted = np.concatenate([stores[0].load("002").mean(axis=0), stores[1].load("002")])
    np.testing.assert_allclose(pairs.music[0], wanted, rtol=1e-6)
    assert checkpoint.fingerprints["audio"].parts == tuple(store.fingerprint() for store in stores)
    assert [part.backend for part in checkpoint.parts["video"]] == ["efficientnet", "descriptors_video"]
    assert [part.width for part in checkpoint.parts["music"]] == [200, 47]
    variances = [part.width * part.weight**2 for part in checkpoint.parts["music"]]
    assert variances == pytest.approx([247 / 2, 247 / 2])


def test_a_list_of_one_backend_is_the_same_as_its_name(collection):
    listed, named = (train(variant) for variant in ("listed", "vmnet_musicnn"))
    assert listed.tensors.keys() == named.tensors.keys()
    assert all(np.array_equal(listed.tensors[name], named.tensors[name]) for name in named.tensors)
    assert (listed.fingerprints, listed.parts) == (named.fingerprints, {})
    arrays = [
        Path(f"data/05_model_input/toy/pairs_{name}/music.npy").read_bytes() for name in ("listed", "vmnet_musicnn")
    ]
    assert arrays[0] == arrays[1]


def test_a_new_file_is_searched_with(collection):
    train()
    run("embed", "index")
    music = load_index(Path("data/07_model_output/toy/fused/music_index"))
    assert music.ids == [i for i in IDS if i != FAILED]  # a side is embedded by itself
    assert load_index(Path("data/07_model_output/toy/fused/video_index")).ids == IDS[::2]
    write_sound("query.wav")
    options = [
        "--music",
        "query.wav",
        "--collection",
        "toy",
        "--variant",
        "fused",
        "--weights-dir",
        "weights",
        "--json",
    ]
    for more in ([], ["--rerank", "0.5"], ["--same-side"]):
        done = CliRunner().invoke(cli, ["recommend", *options, "--top-k", "3", *more])
        assert done.exit_code == 0, done.output
        assert len(json.loads(done.output)["results"]) == 3
    embedder = Embedder.load("data/06_models/toy/fused", weights_dir="weights")
    feature = embedder.extract("music", "query.wav")
    assert [part.shape for part in feature] == [(2, 200), (47,)]
    joint = np.concatenate([feature[0].mean(axis=0), feature[1]])
    expected = embedder([joint, None], pooled=True).music
    np.testing.assert_allclose(embedder.embed_music("query.wav"), expected, atol=1e-6)
    assert embedder.cut_pieces("music", 3.0).embed(feature).shape == (2, embedder.embedding_dim)
    np.testing.assert_allclose(embedder.cut_pieces("music", 60.0).embed(feature), expected, atol=1e-6)


def test_embeddings_are_made_again_where_any_of_the_features_has_changed(collection, caplog):
    train()
    run("embed")
    store = FeatureStore("data/04_feature/toy/descriptors_audio")
    store.write(
        FeatureChunk(store.fingerprint(), (FeatureResult(FeatureRow("002", "done", "t"), store.load("002") + 1),))
    )
    with caplog.at_level(logging.INFO, logger="vmnet_pipeline"):
        run("embed")
    assert "music: 59 embeddings, 58 of them reused" in caplog.text


def test_a_graph_takes_the_joint_vector(collection):
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    checkpoint = train(n_members=2)
    path = export_towers(checkpoint, Path("onnx"))["music"]
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    joint = np.random.default_rng(0).normal(size=(2, 247)).astype(np.float32)
    embedder = Embedder.load("data/06_models/toy/fused", weights_dir="weights")
    found = session.run(None, {"features": joint})[0]
    np.testing.assert_allclose(found, embedder([joint, None], pooled=True).music, atol=1e-5)
    assert session.get_modelmeta().custom_metadata_map["vmnet.backend"] == "musicnn+descriptors_audio"


def test_training_goes_on_with_the_weights_of_its_start(collection):
    first = train(part_weights={"descriptors_audio": 2.0})
    first_file = (FUSED / "model.safetensors").read_bytes()
    second = train(start_from=str(FUSED.absolute()), runtime={"summaries_dir": "second"})
    second = load_checkpoint(Path("second/fused/checkpoint"))
    assert second.parts == first.parts
    assert np.array_equal(second.tensors["music_scaler.std"], first.tensors["music_scaler.std"])
    assert (FUSED / "model.safetensors").read_bytes() == first_file
    train("vmnet_musicnn")
    with pytest.raises(CheckpointError, match=r"backend 'musicnn', not 'musicnn\+descriptors_audio'"):
        train(start_from=str(Path("data/06_models/toy/vmnet_musicnn/checkpoint").absolute()))


def test_other_settings_of_one_backend_are_refused_by_name(collection):
    checkpoint = train()
    embedder = Embedder(
        checkpoint, weights_dir="weights",
        music_backend=[{**BACKENDS["musicnn"], "max_duration_s": 9.0}, BACKENDS["descriptors_audio"]],
    )  # fmt: skip
    with pytest.raises(CheckpointError, match=r"\(musicnn: max_duration_s 6.0, not 9.0\)"):
        embedder.backend("music")
    swapped = replace(checkpoint, fingerprints={"audio": checkpoint.fingerprints["video"]})
    with pytest.raises(CheckpointError, match="makes video features, not those of music"):
        Embedder(swapped, weights_dir="weights").backend("music")


def test_towers_over_sequences_take_one_backend(collection):
    with pytest.raises(ParameterError, match=r"joins musicnn\+descriptors_audio"):
        train(model={"music_tower": "sequence"})
