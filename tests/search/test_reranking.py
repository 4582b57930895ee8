"""Re-ranking: pieces, answers in a new order, and the gain where order in time is all that tells items apart."""

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from vmnet_pipeline.errors import ParameterError
from vmnet_pipeline.experiments.reranking import PieceSource, measure_reranking
from vmnet_pipeline.inference.input_spec import InputSpec
from vmnet_pipeline.inference.pieces import PieceEmbedder
from vmnet_pipeline.models.factory import build_model
from vmnet_pipeline.params import EvaluateParams
from vmnet_pipeline.search.dtw import align_sequences
from vmnet_pipeline.search.reranking import Reranking, rerank_hits
from vmnet_pipeline.search.vector_index import Hit
from vmnet_pipeline.types import PairArrays

DIM = 6
N_STEPS = 6


class Backend:
    """Features of one entry per second."""

    name, step_s = "toy", 1.0

    def pool(self, feature):
        return feature.mean(axis=0)


@dataclass
class Store:
    features: dict = field(default_factory=dict)

    def load(self, item_id):
        return self.features[item_id]


def make_network():
    """Both towers are the same function, so that equal features have the cosine 1."""
    torch.manual_seed(0)
    model = build_model("musicnn", "musicnn", (DIM,), (DIM,), embedding_dim=8).eval().requires_grad_(False)
    model.music.hidden, model.music.fc, model.music.bn = torch.nn.Sequential(), torch.nn.Identity(), torch.nn.Identity()
    model.video.hidden, model.video.fc, model.video.bn = torch.nn.Sequential(), torch.nn.Identity(), torch.nn.Identity()
    model.music.place = torch.nn.Parameter(torch.zeros(1))
    return model


def make_pieces(model, side, piece_s=1.0):
    return PieceEmbedder(model, InputSpec(side, (DIM,), takes_steps=False), Backend(), piece_s)


def make_orders(n, seed):
    """Features of `n` items: the same steps for all, each in an order of its own."""
    rng = np.random.default_rng(seed)
    return {f"{i:02d}": np.eye(DIM, dtype=np.float32)[rng.permutation(N_STEPS)] + 0.1 for i in range(n)}


def test_pieces_are_of_nearly_one_length():
    pieces = make_pieces(make_network(), "music", piece_s=2.0)
    feature = make_orders(1, 0)["00"]
    found = pieces.embed(feature)
    expected = feature.reshape(3, 2, DIM).mean(axis=1)
    np.testing.assert_allclose(found, expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-6)
    assert len(pieces.embed(feature[:5])) == 2
    assert len(pieces.embed(feature[:1])) == 1
    assert len(make_pieces(make_network(), "music", piece_s=0.1).embed(feature)) == N_STEPS


def test_answers_in_the_order_of_time_come_first():
    model, features = make_network(), make_orders(4, 1)
    pieces, names = make_pieces(model, "video"), list(features)
    hits = [Hit(name, 0.9 - 0.01 * place, place) for place, name in enumerate(names)]
    query = make_pieces(model, "music").embed(features["02"])

    def order(weight, n_candidates=4):
        def align(ids):
            return align_sequences(query, [pieces.embed(features[item_id]) for item_id in ids])

        return [hit.id for hit in rerank_hits(hits, Reranking(align, weight, n_candidates))]

    assert order(0.0) == names
    assert order(1.0)[0] == "02"
    assert order(1.0, n_candidates=2)[2:] == ["02", "03"]
    assert order(1.0, n_candidates=0) == names


def make_pairs(features, groups=None):
    pooled = np.stack([feature.mean(axis=0) for feature in features.values()])
    pooled = pooled + np.random.default_rng(5).normal(scale=0.05, size=pooled.shape).astype(np.float32)
    return PairArrays(tuple(features), tuple(groups or features), pooled, pooled[::-1].copy())


@pytest.mark.parametrize(("ordered", "gains"), [(True, True), (False, False)])
def test_the_gain_is_told_where_there_is_one(ordered, gains):
    """Whole items are noise. Pieces of both sides agree in time, or are the pieces of another item."""
    model = make_network()
    val, test = make_orders(12, 2), make_orders(24, 3)
    test = {f"t{name}": feature for name, feature in test.items()}
    both = {**val, **test}
    turned = both if ordered else dict(zip(both, list(both.values())[::-1], strict=True))
    music = PieceSource(Store(both), make_pieces(model, "music"))
    video = PieceSource(Store(turned), make_pieces(model, "video"))
    params = EvaluateParams(rerank={"n_candidates": 24, "piece_s": 1.0}, n_resamples=200)
    result = measure_reranking(model, make_pairs(val), make_pairs(test), music, video, params)
    for figures in result["directions"].values():
        mrr = figures["mrr"]
        assert mrr["difference"] == pytest.approx(mrr["with"] - mrr["without"])
        assert mrr["low"] <= mrr["difference"] <= mrr["high"]
        assert (mrr["low"] > 0.3) == gains
        if gains:
            assert figures["recall_at_1"]["with"] > 0.9
    assert not gains or result["weight"] > 0
    assert result["validation_mrr"][str(result["weight"])] == max(result["validation_mrr"].values())


def test_right_answers_that_are_no_candidates_stay():
    model, features = make_network(), make_orders(12, 4)
    source = {side: PieceSource(Store(features), make_pieces(model, side)) for side in ("music", "video")}
    pairs = make_pairs(features)
    few = EvaluateParams(rerank={"n_candidates": 1}, n_resamples=10)
    result = measure_reranking(model, pairs, pairs, source["music"], source["video"], few)
    for figures in result["directions"].values():
        assert all(one["with"] == one["without"] for one in figures.values())
    with pytest.raises(ParameterError, match="validation pairs"):
        none = PairArrays((), (), pairs.music[:0], pairs.video[:0])
        measure_reranking(model, none, pairs, source["music"], source["video"], few)


def test_what_cannot_be_cut_is_told():
    model = make_network()
    with pytest.raises(ParameterError, match="takes 62 steps of every item"):
        PieceEmbedder(model, InputSpec("music", (62, DIM), takes_steps=False), Backend(), 3.0)
    backend = Backend()
    backend.step_s = None
    with pytest.raises(ParameterError, match="'toy' does not state the interval"):
        PieceEmbedder(model, InputSpec("music", (DIM,), takes_steps=False), backend, 3.0)
    with pytest.raises(ParameterError, match="stored pooled"):
        make_pieces(model, "music").embed(np.ones(DIM, np.float32))
