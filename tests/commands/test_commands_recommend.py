"""`kedro recommend` on descriptors: from training to a table that says how likely an answer is and why it fits."""

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from descriptor_pairs import AUDIO, FINGERPRINTS, VIDEO, draw_pairs
from vmnet_pipeline import Embedder
from vmnet_pipeline.commands.recommend import format_json, format_table, make_ranking
from vmnet_pipeline.features.store import FeatureChunk, FeatureResult, FeatureRow, FeatureStore
from vmnet_pipeline.models.checkpoints import save_checkpoint
from vmnet_pipeline.pairs.packing import PairFiles
from vmnet_pipeline.params import TrainParams
from vmnet_pipeline.pipelines.train.nodes import train_network
from vmnet_pipeline.search.index_files import save_index
from vmnet_pipeline.search.vector_index import VectorIndex
from vmnet_pipeline.types import CollectionPlaces

LIBRARY = draw_pairs(30, 9)
LIBRARY.video[0, VIDEO.index("cuts")], LIBRARY.music[0, AUDIO.index("tempo")] = 2.0, 60.0


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    folder, drawn = tmp_path_factory.mktemp("project"), draw_pairs(600, 1)
    sizes = {"train": 500, "val": 99, "test": 1}
    pairs = PairFiles(drawn.ids, drawn.groups, drawn.music, drawn.video, sizes, fingerprints=FINGERPRINTS)
    model = {"music_tower": "canonical", "video_tower": "canonical", "embedding_dim": 8}
    params = TrainParams(epochs=2, batch_size=64, learning_rate=1e-4, device="cpu", n_threads=1, model=model)
    checkpoint, _ = train_network(pairs, folder / "state", params)
    save_checkpoint(folder / "checkpoint", checkpoint)
    embedder = Embedder(checkpoint)
    vectors = embedder([LIBRARY.music, None], pooled=True).music
    items = pd.DataFrame({"id": LIBRARY.ids, "title": [f"Track {i}" for i in LIBRARY.ids]})
    about = {"checkpoint": embedder.digest, "calibration": checkpoint.calibration.model_dump()}
    save_index(folder / "output/music_index", VectorIndex.build(vectors, items, about=about))
    results = [
        FeatureResult(FeatureRow(i, "done", "s"), row) for i, row in zip(LIBRARY.ids, LIBRARY.music, strict=True)
    ]
    store = FeatureStore(folder / "features/descriptors_audio")
    store.write(FeatureChunk(FINGERPRINTS["audio"], tuple(results)))
    return CollectionPlaces(
        folder / "output", folder / "checkpoint", folder / "none", folder, (folder,), folder / "features"
    )


def test_the_table_says_how_likely_an_answer_is_and_why_it_fits(places, monkeypatch):
    monkeypatch.setattr(Embedder, "extract", lambda *_, **__: LIBRARY.video[0])
    ranking = make_ranking(
        Path("clip.mp4"), "video", places, same_side=False, rerank=None, top_k=3, filters=(), exclude=()
    )
    table = format_table(ranking).splitlines()
    assert table[0].split() == ["rank", "score", "fit", "above", "id", "title", "reasons"]
    assert ranking[0].id == "0" and ranking[0].fit > 0.2 and ranking[0].percentile > 95
    assert "both slow (tempo 60, cuts every 30.0 s)" in table[1]
    assert json.loads(format_json(Path("clip.mp4"), "video_to_music", ranking))["results"][0]["reasons"]
    assert ranking.remark == ""


def test_without_stored_features_there_are_answers_without_reasons(places, monkeypatch):
    monkeypatch.setattr(Embedder, "extract", lambda *_, **__: LIBRARY.video[0])
    for features in (None, places.output):
        found = make_ranking(
            Path("clip.mp4"), "video", replace(places, features=features), same_side=False, rerank=None, top_k=3
        )
        assert [item.reasons for item in found] == ["", "", ""] and found[0].id == "0"
        assert "reasons" not in format_table(found)
