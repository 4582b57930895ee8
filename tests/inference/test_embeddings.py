"""Embeddings of whole collections, and the indexes that follow them."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from vmnet_pipeline.errors import EmbedderError, SearchIndexError
from vmnet_pipeline.evaluation.calibration import Calibration
from vmnet_pipeline.features.store import FeatureChunk, FeatureResult, FeatureRow, FeatureStore
from vmnet_pipeline.inference.embeddings import (
    EmbeddingPlan,
    EmbeddingSet,
    plan_pair_embeddings,
    plan_store_embeddings,
    read_embeddings,
    write_embeddings,
)
from vmnet_pipeline.models.checkpoints import Checkpoint, build_from_checkpoint, digest_checkpoint
from vmnet_pipeline.models.embed import embed_arrays
from vmnet_pipeline.models.factory import build_model
from vmnet_pipeline.pairs.packing import PairFiles
from vmnet_pipeline.params import IndexParams, PieceParams
from vmnet_pipeline.search.index_update import update_index
from vmnet_pipeline.types import Fingerprint


def make_checkpoint(seed=0, tower="musicnn"):
    config = {
        "music_tower": tower, "video_tower": "musicnn", "music_shape": [6] if tower == "musicnn" else [9, 6],
        "video_shape": [7], "embedding_dim": 8, "dropout": 0.1, "standardise": False,
    }  # fmt: skip
    torch.manual_seed(seed)
    return Checkpoint(config, {name: t.clone() for name, t in build_model(**config).state_dict().items()})


def mean_over_time(feature):
    return feature.mean(axis=0, dtype=np.float64).astype(np.float32)


def write_features(folder, ids, width=6, shift=0.0):
    """Features that follow from the id, so that anybody can tell whose they are."""
    results = [
        FeatureResult(
            FeatureRow(i, "done", f"sha256:{shift}"), np.random.default_rng(int(i)).normal(size=(5, width)) + shift
        )
        for i in ids
    ]
    chunk = FeatureChunk(Fingerprint("toy"), tuple(FeatureResult(r.row, r.array.astype(np.float32)) for r in results))
    FeatureStore(folder).write(chunk)
    return FeatureStore(folder)


def embed(store, ids, checkpoint, folder, known=None, **options):
    planned = plan_store_embeddings(store, ids, mean_over_time, checkpoint, "music", known, **options)
    write_embeddings(folder, planned)
    return planned, read_embeddings(folder)


@pytest.mark.parametrize("batch_size", [1, 2, 100])
def test_each_item_gets_the_embedding_of_its_own_feature(tmp_path, batch_size):
    store, checkpoint = write_features(tmp_path / "store", ["003", "001", "002"]), make_checkpoint()
    _, embeddings = embed(store, ["001", "004", "003"], checkpoint, tmp_path / "out", batch_size=batch_size)
    assert embeddings.ids == ("001", "003")
    assert embeddings.checkpoint == digest_checkpoint(checkpoint)
    pooled = np.stack([mean_over_time(store.load(item_id)) for item_id in embeddings.ids])
    expected = embed_arrays(build_from_checkpoint(checkpoint), music=pooled)
    np.testing.assert_allclose(embeddings.vectors, expected, atol=1e-6)


def test_towers_over_sequences_get_all_steps(tmp_path):
    store, checkpoint = write_features(tmp_path / "store", ["001"]), make_checkpoint(tower="sequence")
    _, embeddings = embed(store, ["001"], checkpoint, tmp_path / "out")
    from vmnet_pipeline.pairs.sequences import stack_sequences

    expected = embed_arrays(build_from_checkpoint(checkpoint), music=stack_sequences([store.load("001")], 9))
    np.testing.assert_allclose(embeddings.vectors, expected, atol=1e-6)


def test_what_is_there_is_not_made_again_unless_feature_or_network_changed(tmp_path):
    checkpoint = make_checkpoint()
    store = write_features(tmp_path / "store", ["001", "002"])
    _, known = embed(store, ["001", "002"], checkpoint, tmp_path / "out")
    marked = replace(known, vectors=np.array(known.vectors) * 0 + 5)
    store = write_features(tmp_path / "store", ["002", "003"], shift=1.0)
    planned, new = embed(store, ["001", "002", "003"], checkpoint, tmp_path / "out", marked)
    assert planned.n_reused == 1
    assert (new.vectors[0] == 5).all()
    np.testing.assert_allclose(np.linalg.norm(new.vectors[1:], axis=1), 1, atol=1e-6)
    planned, new = embed(store, ["001"], make_checkpoint(seed=1), tmp_path / "out", marked)
    assert planned.n_reused == 0
    assert not (new.vectors == 5).any()


def test_an_empty_collection_and_features_of_another_width(tmp_path):
    _, embeddings = embed(FeatureStore(tmp_path / "none"), ["001"], make_checkpoint(), tmp_path / "out")
    assert embeddings.vectors.shape == (0, 8)
    store = write_features(tmp_path / "store", ["001", "002"], width=9)
    with pytest.raises(EmbedderError, match=rf"{tmp_path / 'store'}, items from '001' to '002'.*\(9,\).*\(6,\)"):
        embed(store, ["001", "002"], make_checkpoint(), tmp_path / "out")
    assert read_embeddings(tmp_path / "out").ids == ()


def test_all_packed_pairs_are_embedded(tmp_path):
    rng = np.random.default_rng(0)
    music, video = rng.normal(size=(5, 6)).astype(np.float32), rng.normal(size=(5, 7)).astype(np.float32)
    pairs = PairFiles(tuple("abcde"), tuple("aabbc"), music, video, {"train": 3, "val": 0, "test": 2})
    checkpoint = make_checkpoint()
    write_embeddings(tmp_path / "out", plan_pair_embeddings(pairs, checkpoint, "video", batch_size=2))
    embeddings = read_embeddings(tmp_path / "out")
    assert embeddings.ids == pairs.ids
    expected = embed_arrays(build_from_checkpoint(checkpoint), video=video)
    np.testing.assert_allclose(embeddings.vectors, expected, atol=1e-6)


def test_damaged_embeddings_are_named(tmp_path):
    with pytest.raises(SearchIndexError, match=r"no embeddings in .*out; run `kedro run --pipeline embed`"):
        read_embeddings(tmp_path / "out")
    embed(write_features(tmp_path / "store", ["001", "002"]), ["001", "002"], make_checkpoint(), tmp_path / "out")
    np.save(tmp_path / "out" / "vectors.npy", np.zeros((1, 8), np.float32))
    with pytest.raises(SearchIndexError, match=r"vectors\.npy does not match its checksum"):
        read_embeddings(tmp_path / "out")
    (tmp_path / "out" / "vectors.npy").write_bytes(b"x")
    with pytest.raises(SearchIndexError, match="damaged"):
        read_embeddings(tmp_path / "out")


# --- the index follows

PARAMS = IndexParams.model_validate({"max_removed_share": 0.5})


def make_set(versions, checkpoint="net"):
    """One vector per id; what it is made from, and so its direction, is named by a number."""
    vectors = np.zeros((len(versions), 32), np.float32)
    for row, version in enumerate(versions.values()):
        vectors[row, version] = 1.0
    return EmbeddingSet(tuple(versions), tuple(f"v{version}" for version in versions.values()), vectors, checkpoint)


def describe(ids, title="title of"):
    return pd.DataFrame({"id": list(ids), "title": [f"{title} {item_id}" for item_id in ids]})


def find(index, version):
    query = np.zeros(32, np.float32)
    query[version] = 1.0
    return [(hit.id, index.items.loc[hit.position, "title"]) for hit in index.search(query, 1)[0] if hit.score > 0.9]


def test_an_index_follows_its_collection_without_being_built_anew():
    index = update_index(None, make_set({"a": 0, "b": 1, "c": 2, "d": 3}), describe("abcd"), PARAMS)
    updated = update_index(index, make_set({"a": 0, "b": 7, "d": 3, "e": 4}), describe("abde", "new title of"), PARAMS)
    assert updated is index
    assert sorted(updated.ids) == ["a", "b", "d", "e"]
    assert len(updated.alive) == 6  # c and the old b are hidden
    assert find(updated, 7) == [("b", "new title of b")]
    assert find(updated, 4) == [("e", "new title of e")]
    assert find(updated, 3) == [("d", "new title of d")]
    assert find(updated, 1) == find(updated, 2) == []


def test_an_index_keeps_what_the_scores_mean_until_that_is_no_longer_known():
    known = Calibration(n_pairs=5, mrr=0.5, mrr_low=None, mrr_high=None, mrr_chance=0.4)
    index = update_index(None, make_set({"a": 0, "b": 1}), describe("ab"), PARAMS)
    same = update_index(index, make_set({"a": 0, "b": 1}), describe("ab"), PARAMS, known)
    assert same is index and index.about == {"checkpoint": "net", "calibration": known.model_dump()}
    update_index(index, make_set({"a": 0, "b": 1}), describe("ab"), PARAMS)
    assert index.about == {"checkpoint": "net"}


@pytest.mark.parametrize(
    ("versions", "checkpoint", "params"),
    [
        ({"a": 0, "b": 1}, "other net", {}),
        ({"a": 0, "b": 1}, "net", {"rebuild": True}),
        ({"a": 0, "b": 1}, "net", {"kind": "hnsw"}),
        ({"a": 0, "b": 1}, "net", {"hnsw_links": 16}),
        ({"b": 1}, "net", {"max_removed_share": 0.4}),
    ],
)
def test_an_index_is_built_anew_where_it_has_to_be(versions, checkpoint, params):
    index = update_index(None, make_set({"a": 0, "b": 1}), describe("ab"), PARAMS)
    assert update_index(index, make_set({"a": 0, "b": 1}), describe("ab"), PARAMS) is index
    new = update_index(index, make_set(versions, checkpoint), describe("ab"), PARAMS.model_copy(update=params))
    assert new is not index
    assert new.ids == list(versions)
    assert new.about == {"checkpoint": checkpoint}


def test_rows_whose_source_is_not_known_are_always_replaced():
    known = replace(make_set({"a": 0}), sources=("",))
    index = update_index(None, known, describe("a"), PARAMS.model_copy(update={"max_removed_share": 1.0}))
    moved = replace(make_set({"a": 9}), sources=("",))
    index = update_index(index, moved, describe("a"), PARAMS.model_copy(update={"max_removed_share": 1.0}))
    assert find(index, 9) == [("a", "title of a")]
    assert find(index, 0) == []


def test_pieces_are_stored_beside_the_mean_direction_of_each_file(tmp_path):
    rng = np.random.default_rng(0)
    parts = [rng.standard_normal((n, 8)) for n in (3, 1, 4)]
    parts = [(part / np.linalg.norm(part, axis=1, keepdims=True)).astype(np.float32) for part in parts]
    params = PieceParams(hop_s=2.0)
    planned = EmbeddingPlan(("a", "b", "c"), ("1", "2", "3"), 8, "digest", iter(parts), pieces=params)
    write_embeddings(tmp_path / "music", planned)
    found = read_embeddings(tmp_path / "music")
    assert found.pieces.params == params
    for row, part in enumerate(parts):
        np.testing.assert_allclose(found.pieces.take(row), part, atol=1e-3)
        mean = part.mean(axis=0)
        np.testing.assert_allclose(found.vectors[row], mean / np.linalg.norm(mean), atol=1e-6)
    np.save(tmp_path / "music" / "offsets.npy", np.array([0, 3, 3, 8]))
    with pytest.raises(SearchIndexError, match="damaged"):
        read_embeddings(tmp_path / "music")
