"""`kedro run --pipelines=embed,index` and `kedro recommend` on a small collection, with the project's own catalog."""

import json
import re
import wave
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from kedro.config import OmegaConfigLoader
from kedro.io import DataCatalog
from kedro.runner import SequentialRunner

from vmnet_pipeline import Embedder
from vmnet_pipeline.backends.registry import make_backend
from vmnet_pipeline.cli import cli
from vmnet_pipeline.evaluation.calibration import LEVELS, Calibration
from vmnet_pipeline.features.store import FeatureChunk, FeatureResult, FeatureRow, FeatureStore
from vmnet_pipeline.inference.embeddings import read_embeddings
from vmnet_pipeline.ingestion.schemas import MANIFEST_COLUMNS
from vmnet_pipeline.models.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from vmnet_pipeline.models.factory import build_model
from vmnet_pipeline.pairs.packing import PairFiles
from vmnet_pipeline.params import VARIANTS, EmbedParams, EvaluateParams, IndexParams, SplitParams, TrainParams
from vmnet_pipeline.pipeline_registry import register_pipelines, register_reference_pipelines
from vmnet_pipeline.pipelines.evaluate.nodes import rerank_answers
from vmnet_pipeline.search.dtw import align_sequences
from vmnet_pipeline.search.index_files import load_index
from vmnet_pipeline.settings import CONFIG_LOADER_ARGS

pytestmark = pytest.mark.process

ROOT = Path(__file__).parents[2]
IDS = [f"{i:03d}" for i in range(6)]
MUSICNN = {
    "backend": "musicnn",
    "weights": "random",
    "max_duration_s": 6.0,
    "engine": "torch",
    "weights_dir": "weights",
}
LITE = {"backend": "efficientnet", "weights": "random", "engine": "torch", "weights_dir": "weights"}
MODELS = {"embed": EmbedParams, "index": IndexParams, "split": SplitParams, "train": TrainParams}
VARIANT = "vmnet_musicnn"
OUTPUT = Path("data/07_model_output/toy") / VARIANT


def save_network(folder, fingerprints):
    config = {
        "music_tower": "musicnn", "video_tower": "musicnn", "music_shape": [200], "video_shape": [1280],
        "embedding_dim": 16, "dropout": 0.1, "standardise": False,
    }  # fmt: skip
    torch.manual_seed(len(str(folder)))
    tensors = {name: tensor.clone() for name, tensor in build_model(**config).state_dict().items()}
    save_checkpoint(Path(folder), Checkpoint(config, tensors, fingerprints))


def write_manifest(ids):
    rows = [
        {"id": i, "status": "ok", "group": f"g{int(i) % 2}", "video_path": f"/media/clip {i}.mp4",
         "audio_path": f"/media/clip {i}.ogg", "audio_duration_s": 10.0 + int(i), "video_duration_s": 20.0}
        for i in ids
    ]  # fmt: skip
    path = Path("data/02_intermediate/toy/manifest.parquet")
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame(rows, columns=list(MANIFEST_COLUMNS))
    texts = [name for name, dtype in MANIFEST_COLUMNS.items() if dtype == "str"]
    table[texts] = table[texts].astype("object").fillna("")
    table.astype(MANIFEST_COLUMNS).to_parquet(path)


def write_sound(path, seed=0):
    samples = 8000 * np.random.default_rng(seed).standard_normal(16_000 * 4)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(samples.clip(-32768, 32767).astype("<i2").tobytes())


@pytest.fixture
def collection(tmp_path, monkeypatch):
    """A project folder with a manifest, features of both sides and a checkpoint."""
    monkeypatch.chdir(tmp_path)
    backends = {"musicnn": make_backend(MUSICNN), "efficientnet": make_backend(LITE)}
    for name, width in (("musicnn", 200), ("efficientnet", 1280)):
        rng = np.random.default_rng(width)
        results = tuple(
            FeatureResult(FeatureRow(i, "done", "s"), rng.normal(size=(3, width)).astype(np.float32)) for i in IDS
        )
        store = FeatureStore(f"data/04_feature/toy/{name}")
        store.write(FeatureChunk(backends[name].fingerprint(), results))
    save_network(
        "data/06_models/toy/vmnet_musicnn/checkpoint",
        {"audio": backends["musicnn"].fingerprint(), "video": backends["efficientnet"].fingerprint()},
    )
    write_manifest(IDS)
    Path("tags.csv").write_text("id,title,licence\n001,Dawn,CC-BY\n")
    return tmp_path


def run(names, pipelines=None, **runtime_params):
    params = {"collection": "toy", "metadata": "tags.csv", **runtime_params}
    loader = OmegaConfigLoader(
        str(ROOT / "conf"), base_env="base", default_run_env="local", runtime_params=params,
        custom_resolvers=CONFIG_LOADER_ARGS["custom_resolvers"],
    )  # fmt: skip
    catalog = DataCatalog.from_config(loader["catalog"])
    parameters = loader["parameters"] | {"musicnn": MUSICNN, "efficientnet": LITE}
    for name, value in parameters.items():
        catalog[f"params:{name}"] = MODELS[name].model_validate(value) if name in MODELS else value
    pipelines = pipelines or register_pipelines({VARIANT: VARIANTS[VARIANT]})
    SequentialRunner().run(sum((pipelines[name] for name in names[1:]), pipelines[names[0]]), catalog)


def recommend(*arguments, ok=True):
    done = CliRunner().invoke(cli, ["recommend", "--variant", VARIANT, *map(str, arguments)])
    assert (done.exit_code == 0) is ok, done.output
    return done.output


def test_a_collection_is_embedded_indexed_and_searched(collection):
    run(["embed", "index"])
    music, video = load_index(OUTPUT / "music_index"), load_index(OUTPUT / "video_index")
    assert music.ids == video.ids == IDS
    assert music.items["duration_s"].tolist() == [10.0, 11.0, 12.0, 13.0, 14.0, 15.0]
    assert video.items["duration_s"].tolist() == [20.0] * 6
    assert music.items["title"].tolist()[:2] == ["clip 000", "Dawn"]
    assert music.items["licence"].tolist()[:2] == ["", "CC-BY"]

    write_sound("query.wav")
    options = ["--music", "query.wav", "--collection", "toy", "--weights-dir", "weights"]
    answer = json.loads(recommend(*options, "--json"))
    assert answer["direction"] == "music_to_video"
    assert sorted(item["id"] for item in answer["results"]) == IDS
    scores = [item["score"] for item in answer["results"]]
    assert scores == sorted(scores, reverse=True)
    assert all(-1.001 <= score <= 1.001 for score in scores)
    assert [item["rank"] for item in answer["results"]] == [1, 2, 3, 4, 5, 6]
    table = recommend(*options, "--top-k", 3, "--filter", "group=g1").splitlines()
    assert table[4].startswith("What these scores mean is not known")
    assert table[0].split() == ["rank", "score", "id", "title", "group", "licence", "duration"]
    assert {line.split()[2] for line in table[1:4]} == {"001", "003", "005"}
    assert "Dawn" in "".join(table)
    assert "No item matches the filters" in recommend(*options, "--filter", "duration<5")


def test_answers_say_what_their_scores_mean(collection):
    folder = Path("data/06_models/toy/vmnet_musicnn/checkpoint")
    write_sound("query.wav")
    options = ["--music", "query.wav", "--collection", "toy", "--weights-dir", "weights"]
    run(["embed", "index"])
    assert "What these scores mean is not known" in recommend(*options)
    assert {item["fit"] for item in json.loads(recommend(*options, "--json"))["results"]} == {None}
    curve = {"slope": 4.0, "tail": 0.0, "intercept": -1.0, "quantiles": list(LEVELS), "thresholds": {}}
    curve["thresholds"] = {"music_to_video": [{"pool_size": 2, "score": 1.5}]}
    figures = {"n_pairs": 30, "mrr": 0.2, "mrr_low": 0.1, "mrr_high": 0.3, "mrr_chance": 0.15}
    save_checkpoint(folder, replace(load_checkpoint(folder), calibration=Calibration(**figures, curve=curve)))
    run(["index"])
    answer = json.loads(recommend(*options, "--json", "--variety", "0.5"))
    for item in answer["results"]:
        odds = np.exp(4 * item["score"] - 1) / 5
        assert item["fit"] == pytest.approx(odds / (1 + odds), abs=1e-6)
    table = recommend(*options).splitlines()
    assert table[0].split()[:5] == ["rank", "score", "fit", "above", "id"]
    assert re.match(r"1 +-?0\.\d{3} +\d+\.\d % +\d+\.\d % +00", table[1])
    remark = " ".join(table[7:]).partition(" Next: ")[0]
    assert remark == answer["remark"]
    assert remark.startswith("Nothing in this library fits: the best score, ")
    assert "This model is not better than chance on its validation pairs (MRR 0.200, 95 % interval" in remark
    alike = json.loads(recommend(*options, "--json", "--same-side"))
    assert alike["remark"] == "" and {item["fit"] for item in alike["results"]} == {None}
    trained = load_checkpoint(folder)
    save_checkpoint(folder, replace(trained, tensors={name: 2 * part for name, part in trained.tensors.items()}))
    run(["index"])  # of the embeddings of the network before
    assert "calibration" not in load_index(OUTPUT / "music_index").about


def test_more_like_a_file_and_answers_compared_again(collection):
    run(["embed", "index"])
    write_sound("query.wav")
    options = ["--music", "query.wav", "--collection", "toy", "--weights-dir", "weights", "--json"]
    whole, mixed = (json.loads(recommend(*options, *more)) for more in ([], ["--rerank", "0.5"]))
    embedder = Embedder.load("data/06_models/toy/vmnet_musicnn", weights_dir="weights")
    query = embedder.cut_pieces("music", 3.0).embed(embedder.extract("music", "query.wav"))
    store = FeatureStore("data/04_feature/toy/efficientnet")
    pieces = [embedder.cut_pieces("video", 3.0).embed(store.load(item["id"])) for item in whole["results"]]
    expected = [
        0.5 * item["score"] + 0.5 * agreement
        for item, agreement in zip(whole["results"], align_sequences(query, pieces), strict=True)
    ]
    assert [item["score"] for item in mixed["results"]] == pytest.approx(sorted(expected, reverse=True), abs=1e-5)
    assert mixed["results"][0]["id"] == whole["results"][int(np.argmax(expected))]["id"]
    alike = json.loads(recommend(*options, "--same-side"))
    assert alike["direction"] == "music_to_music"
    ids = [item["id"] for item in whole["results"]]
    without = json.loads(recommend(*options, "--exclude", ids[0], "--exclude", ids[2], "--top-k", 3))
    assert [(item["rank"], item["id"]) for item in without["results"]] == [(1, ids[1]), (2, ids[3]), (3, ids[4])]
    rows = read_embeddings(OUTPUT / "music_embeddings").vectors @ embedder.embed_music("query.wav")[0]
    assert [item["id"] for item in alike["results"]] == [IDS[place] for place in np.argsort(-rows)]


def test_the_gain_of_comparing_again_is_told(collection):
    stores = [FeatureStore(f"data/04_feature/toy/{name}") for name in ("musicnn", "efficientnet")]
    music, video = (np.stack([store.load(i).mean(axis=0) for i in IDS]) for store in stores)
    pairs = PairFiles(tuple(IDS), tuple(IDS), music, video, {"train": 1, "val": 2, "test": 3})
    checkpoint = load_checkpoint(Path("data/06_models/toy/vmnet_musicnn/checkpoint"))
    features = (stores[0], MUSICNN, stores[1], LITE)
    assert rerank_answers(pairs, checkpoint, EvaluateParams(), *features) == {"n_candidates": 0}
    params = EvaluateParams(rerank={"n_candidates": 2}, n_resamples=10)
    told = rerank_answers(pairs, checkpoint, params, *features)
    assert told["n_items"] == 3
    assert set(told["directions"]) == {"music_to_video", "video_to_music"}
    json.dumps(told, allow_nan=False)


def test_what_goes_wrong_is_said(collection):
    write_sound("query.wav")
    options = ["--music", "query.wav", "--collection", "toy", "--weights-dir", "weights"]
    assert "no search index" in recommend(*options, ok=False)
    assert "give either VIDEOs or --music FILE" in recommend("a.mp4", *options, ok=False)
    assert "give either VIDEOs or --music FILE" in recommend("--collection", "toy", ok=False)
    run(["embed", "index"])
    assert "000" in recommend(*options, "--rerank", "0.5")
    Path("data/04_feature/toy/efficientnet/000.npy").unlink()
    assert "000" in recommend(*options, "--rerank", "0.5", ok=False)
    assert "no 'mood' to filter by" in recommend(*options, "--filter", "mood=sad", ok=False)
    assert "none.wav" in recommend("--music", "none.wav", *options[2:], ok=False)
    fingerprints = {"audio": make_backend(MUSICNN).fingerprint()}
    save_network("other", fingerprints)
    assert "made with another checkpoint" in recommend(*options, "--checkpoint", "other", ok=False)
    assert "there is no checkpoint" in recommend(*options, "--checkpoint", "nowhere", ok=False)


def test_a_second_run_changes_only_what_has_changed(collection):
    run(["embed", "index"])
    first = load_index(OUTPUT / "music_index")
    write_manifest(IDS[1:])
    run(["embed", "index"])
    second = load_index(OUTPUT / "music_index")
    assert second.ids == IDS[1:]
    assert len(second.alive) == len(first.alive)  # hidden, not built anew
    write_manifest(IDS)
    (next(OUTPUT.glob("music_index/version-*/vectors.faiss"))).write_bytes(b"damaged")
    (next(OUTPUT.glob("video_index/version-*/vectors.faiss"))).write_bytes(b"damaged")
    run(["embed", "index"])  # a damaged index is built anew
    assert sorted(load_index(OUTPUT / "music_index").ids) == IDS


def test_music_alone_is_a_collection_too(collection):
    import shutil

    shutil.rmtree("data/04_feature/toy/efficientnet")
    run(["embed", "index"])
    assert load_index(OUTPUT / "music_index").ids == IDS
    assert load_index(OUTPUT / "video_index").ids == []


def test_feature_files_of_ones_own_are_embedded_too(collection):
    from reference_data import make_reference_data

    make_reference_data(collection / "pairs", n_train=8, n_test=4)
    config = {
        "music_tower": "musicnn", "video_tower": "musicnn", "music_shape": [24], "video_shape": [30],
        "embedding_dim": 8, "dropout": 0.1, "standardise": False,
    }  # fmt: skip
    save_checkpoint(Path("net"), Checkpoint(config, dict(build_model(**config).state_dict())))
    pipelines = register_reference_pipelines("vmnet_musicnn")
    run(["embed", "index"], pipelines, pairs_dir="pairs", checkpoint="net", collection="toy")
    assert sorted(load_index(OUTPUT / "music_index").ids) == [f"{i:03d}" for i in range(12)]
