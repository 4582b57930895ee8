"""What words can ask for, from stored features of several backends."""

import json

import numpy as np
import pytest
import torch

from vmnet_pipeline.backends.musicnn_tags import MAGNATAGATUNE_TAGS, MILLION_SONG_TAGS
from vmnet_pipeline.backends.picture_classes import make_classifier
from vmnet_pipeline.backends.registry import get_backend
from vmnet_pipeline.errors import WeightsError
from vmnet_pipeline.features.store import FeatureChunk, FeatureResult, FeatureRow, FeatureStore
from vmnet_pipeline.types import Fingerprint
from vmnet_pipeline.words.collecting import collect_qualities, name_tags

TAGGRAM = {"model": "MSD_musicnn", "layer": "taggram", "weights": {"name": "MSD_musicnn"}}
TAGS = {**TAGGRAM, "model": "MTT_musicnn", "weights": {"name": "MTT_musicnn"}, "pooled": True}


def store(folder, fingerprint, features):
    results = tuple(
        FeatureResult(FeatureRow(item_id, "done", "s"), np.asarray(feature, np.float32))
        for item_id, feature in features.items()
    )
    FeatureStore(folder).write(FeatureChunk(fingerprint, results))
    return FeatureStore(folder)


def make_taggram(**tags):
    rows = np.full((3, 50), 0.1)
    for name, value in tags.items():
        rows[:, MILLION_SONG_TAGS.index(name)] = value
    return rows


def test_all_tags_and_descriptors_of_all_stores_are_kept(tmp_path, caplog):
    musicnn = store(
        tmp_path / "musicnn",
        Fingerprint("musicnn", TAGGRAM),
        {"a": make_taggram(rock=0.9, pop=0.5), "b": make_taggram(jazz=0.7), "damaged": make_taggram()},
    )
    tags = store(tmp_path / "tags", Fingerprint("musicnn_tags", TAGS), {"a": np.linspace(0.0, 1.0, 50)})
    described = store(
        tmp_path / "descriptors",
        get_backend("descriptors_audio").fingerprint(),
        {"b": np.arange(47), "c": np.full(47, 2.0)},
    )
    (tmp_path / "musicnn/damaged.npy").write_bytes(b"x")
    stores = [musicnn, FeatureStore(tmp_path / "empty"), tags, described]
    table = collect_qualities(stores, ["a", "b", "c", "d", "damaged"], tmp_path)
    assert table["id"].tolist() == ["a", "b", "c", "d", "damaged"]
    assert list(table.columns[1:101]) == [
        *(f"MSD_musicnn:{tag}" for tag in MILLION_SONG_TAGS),
        *(f"MTT_musicnn:{tag}" for tag in MAGNATAGATUNE_TAGS),
    ]
    rock = table["MSD_musicnn:rock"].to_numpy()
    np.testing.assert_allclose(rock[:2], [np.log(9), np.log(1 / 9)], atol=1e-5)
    assert np.isnan(rock[2:]).all()
    assert np.isfinite(table.iloc[0, 51:101].to_numpy(float)).all()  # also of a probability of 0 or 1
    assert table["descriptors_audio:tempo"].tolist()[1:3] == [12.0, 2.0]
    assert not [name for name in table.columns if "mfcc" in name]
    assert "no tags for 'damaged'" in caplog.text
    assert name_tags(table, 2) == {"a": ["rock", "pop"], "b": ["jazz", "rock"]}
    assert name_tags(table, 0) == name_tags(table[["id"]], 3) == {}


def test_features_that_say_nothing_in_words_are_left_out(tmp_path):
    random = store(tmp_path, Fingerprint("musicnn", {**TAGGRAM, "weights": {"name": "random"}}), {"a": make_taggram()})
    assert list(collect_qualities([random], ["a"], tmp_path).columns) == ["id"]


def test_missing_weights_are_an_error_only_where_tags_are_wanted(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("vmnet_pipeline.backends.weights.download_wheel", lambda *_: "no network")
    monkeypatch.setattr("vmnet_pipeline.backends.weights.download_file", lambda *_: None)
    settings = {**TAGGRAM, "layer": "penultimate"}
    features = store(tmp_path / "store", Fingerprint("musicnn", settings), {"a": np.ones((2, 200))})
    with pytest.raises(WeightsError, match="'MSD_musicnn' are not available"):
        collect_qualities([features], ["a"], tmp_path)
    assert list(collect_qualities([features], ["a"], tmp_path, needs_weights=False).columns) == ["id"]
    assert "words cannot ask for what" in caplog.text


def test_picture_classes_are_those_of_the_whole_network(tmp_path, weights_dir):
    fingerprint = Fingerprint("efficientnet", {"weights": {"name": "efficientnet-lite0"}})
    classifier = make_classifier(fingerprint, weights_dir)
    assert len(set(classifier.names)) == 1000 and classifier.names[0] == "tench"
    content = torch.load(weights_dir / "efficientnet-lite0-57934424.pth", map_location="cpu", weights_only=True)
    features = np.random.default_rng(0).normal(size=(3, 1280)).astype(np.float32)
    logits = torch.nn.functional.linear(torch.from_numpy(features), content["_fc.weight"], content["_fc.bias"])
    np.testing.assert_allclose(classifier.rate(features), logits.softmax(dim=1).mean(dim=0).numpy(), atol=1e-5)
    assert classifier.rate(features[0]).sum() == pytest.approx(1)


def test_without_their_names_there_are_no_picture_classes_and_damaged_names_are_told(
    tmp_path, weights_dir, monkeypatch
):
    fingerprint = Fingerprint("efficientnet", {"weights": {"name": "efficientnet-lite0"}})
    assert make_classifier(fingerprint, tmp_path) is None
    assert make_classifier(Fingerprint("efficientnet", {"weights": {"name": "random"}}), weights_dir) is None
    for name in ("efficientnet-lite0-57934424.pth",):
        (tmp_path / name).symlink_to(weights_dir / name)
    (tmp_path / "imagenet-classes").mkdir()
    (tmp_path / "imagenet-classes/names.json").write_text(json.dumps(["tench"]))
    with pytest.raises(WeightsError, match=r"names\.json"):
        make_classifier(fingerprint, tmp_path)
