"""Tracks alone, videos alone: indexed with a network that exists; new files cost their own time only."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from library_runs import run_library, save_descriptor_network
from vmnet_pipeline.commands.collection import OUTPUT, choose_place, find_network, tell_network
from vmnet_pipeline.commands.recommend import make_ranking
from vmnet_pipeline.demo.clip import make_clip
from vmnet_pipeline.errors import CheckpointError, ParameterError
from vmnet_pipeline.features.store import FeatureStore
from vmnet_pipeline.hooks.library import choose_library_model
from vmnet_pipeline.inference.embedder import Embedder
from vmnet_pipeline.inference.embeddings import read_embeddings
from vmnet_pipeline.inference.libraries import embed_whole_file
from vmnet_pipeline.params import PieceParams
from vmnet_pipeline.search.index_files import load_index
from vmnet_pipeline.types import CollectionPlaces

pytestmark = [pytest.mark.process, pytest.mark.long]


@pytest.fixture
def tracks(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "tracks"
    folder.mkdir()
    for k in range(2):
        make_clip(folder / f"t{k}.ogg", seed=k, duration_s=22.0)
    save_descriptor_network(tmp_path / "network")
    return folder


def find_output() -> Path:
    (folder,) = Path("data/07_model_output").glob("library-*/library")
    return folder


def test_a_folder_of_tracks_is_indexed_and_grows(tracks):
    (tracks / "broken.mp3").write_bytes(b"ID3" + bytes(500))
    run_library(tracks, "network")
    output = find_output()
    assert load_index(output / "music_index").ids == ["t0", "t1"]
    assert load_index(output / "video_index").ids == []
    found = read_embeddings(output / "music_embeddings")
    assert np.diff(found.pieces.offsets).tolist() == [4, 4]
    np.testing.assert_allclose(np.linalg.norm(found.vectors, axis=1), 1.0, atol=1e-5)
    mean = found.pieces.take(1).mean(axis=0)
    np.testing.assert_allclose(found.vectors[1], mean / np.linalg.norm(mean), atol=2e-3)
    direct = embed_whole_file(Embedder.load("network"), "music", tracks / "t1.ogg", PieceParams())
    np.testing.assert_allclose(found.pieces.take(1), direct, atol=2e-3)
    (manifest,) = Path("data/02_intermediate").glob("library-*/manifest.parquet")
    table = pd.read_parquet(manifest).set_index("id")
    assert table.loc["broken", "status"] == "failed"

    words = pd.read_parquet(output / "music_words.parquet").set_index("id")
    assert words.index.tolist() == ["t0", "t1"] and words.loc["t1", "descriptors_audio:tempo"] > 0

    (store,) = Path("data/04_feature").glob("library-*/descriptors_audio")
    before = {path.name: path.stat().st_mtime_ns for path in store.glob("*.npy")}
    make_clip(tracks / "t2.ogg", seed=2, duration_s=5.0)
    run_library(tracks, "network")
    assert load_index(output / "music_index").ids == ["t0", "t1", "t2"]
    after = {path.name: path.stat().st_mtime_ns for path in store.glob("*.npy")}
    assert {name: after[name] for name in before} == before
    assert FeatureStore(store).done_ids() == ["t0", "t1", "t2"]
    (tracks / "t0.ogg").unlink()
    run_library(tracks, "network")
    assert load_index(output / "music_index").ids == ["t1", "t2"]


def test_without_a_network_the_starter_model_indexes_and_answers(tracks, caplog, capsys):
    run_library(tracks, "")
    assert "no trained model found: using the starter model" in caplog.text
    name, variant = choose_place(str(tracks), "", "")
    output = OUTPUT / name / variant
    network = find_network(Path("data/06_models") / name / variant / "checkpoint", output, str(tracks))
    places = CollectionPlaces(output, network, Path("none"), Path("none"), (), Path("data/04_feature") / name)
    clip = tracks.parent / "clip.mp4"
    make_clip(clip, duration_s=8.0, with_audio=False, width=64, height=36)
    ranking = make_ranking(clip, "video", places, same_side=False, rerank=None, top_k=5)
    assert {item.id for item in ranking} == {"t0", "t1"}
    assert ranking[0].score > ranking[1].score
    tell_network(places)
    assert "using the starter model" in capsys.readouterr().err


def test_a_folder_of_videos_without_sound_is_indexed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_descriptor_network(tmp_path / "network")
    (tmp_path / "videos").mkdir()
    make_clip(tmp_path / "videos" / "v.mp4", duration_s=12.0, with_audio=False, width=64, height=36)
    run_library(tmp_path / "videos", "network")
    assert load_index(find_output() / "video_index").ids == ["v"]
    assert load_index(find_output() / "music_index").ids == []


def test_a_run_without_a_network_says_what_is_missing(tmp_path):
    parameters = {"ingest": {"library": "x"}}
    with pytest.raises(CheckpointError, match="no checkpoint"):
        choose_library_model(parameters, {"checkpoint": str(tmp_path)})
    with pytest.raises(ParameterError, match="two collections"):
        choose_library_model(parameters, {"media_dir": "y"})
    network = str(save_descriptor_network(tmp_path / "network"))
    with pytest.raises(ParameterError, match=r"pieces\.hop_s"):
        choose_library_model({**parameters, "pieces": {"hop_s": 0}}, {"checkpoint": network})
    assert choose_library_model({"ingest": {}}, {}) is None
