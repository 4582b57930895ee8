"""Reasons: named terms lower the score when they are neutralised, and terms that do not matter are not named."""

import re
from dataclasses import replace

import numpy as np
import pytest

from descriptor_pairs import AUDIO, FINGERPRINTS, MATTERS, NAMES, SPREADS, VIDEO, draw_pairs, train
from vmnet_pipeline import Embedder
from vmnet_pipeline.backends.descriptors.names import KINDRED_WORDS
from vmnet_pipeline.features.store import FeatureChunk, FeatureResult, FeatureRow, FeatureStore
from vmnet_pipeline.inference.reasons import can_explain, embed_pooled, explain_answers, name_terms, say_terms
from vmnet_pipeline.models.checkpoints import load_checkpoint, save_checkpoint
from vmnet_pipeline.models.occlusion import Term
from vmnet_pipeline.search.recommendation import Ranking, Recommendation, add_reasons
from vmnet_pipeline.types import FeaturePart, Fingerprint, PairArrays


@pytest.fixture(scope="module")
def embedder(tmp_path_factory):
    return Embedder(train(tmp_path_factory.mktemp("state"), draw_pairs(2000, 1)))


def score_without(embedder, side, vectors, name, other):
    """Score of one pair whose descriptor has its mean: no other code of the project but the network."""
    changed = vectors[side].copy()
    changed[NAMES[side].index(name)] = next(t.mean for t in embedder.checkpoint.terms[side] if t.name == name)
    return float(
        embed_pooled(embedder, side, changed[None])[0] @ embed_pooled(embedder, other, vectors[other][None])[0]
    )


@pytest.mark.parametrize(("query", "target"), [("video", "music"), ("music", "video")])
def test_named_terms_lower_the_score_when_neutralised_and_those_without_effect_are_not_named(embedder, query, target):
    pairs, n_named = draw_pairs(20, 9), 0
    for row in range(20):
        vectors = {side: getattr(pairs, side)[row] for side in ("music", "video")}
        ((own, answer),) = name_terms(embedder, query, vectors[query], [vectors[target]])
        whole = float(np.dot(*(embed_pooled(embedder, side, vectors[side][None])[0] for side in ("music", "video"))))
        for side, named, other in ((query, own, target), (target, answer, query)):
            drops = {
                term.name: whole - score_without(embedder, side, vectors, term.name, other)
                for term in embedder.checkpoint.terms[side]
            }
            noise = {term.name: term.noise for term in embedder.checkpoint.terms[side]}
            names = [term.name for term, _ in named]
            n_named += len(names)
            assert all(drops[name] > noise[name] >= 1e-3 for name in names)
            unnamed = [name for name in drops if name not in names and drops[name] > noise[name]]
            # above noise and yet not named: no word for it, near its mean, or three others did more
            for name in unnamed:
                term = next(t for t in embedder.checkpoint.terms[side] if t.name == name)
                is_near = abs(float(vectors[side][term.column]) - term.mean) <= 0.25 * term.std
                assert name.startswith("mfcc_") or is_near or drops[name] <= min(drops[known] for known in names)
    assert n_named > 10


def test_what_matters_is_named_most_often(embedder):
    pairs = draw_pairs(60, 5)
    counts = {}
    for row in range(60):
        ((own, answer),) = name_terms(embedder, "video", pairs.video[row], [pairs.music[row]])
        for term, _ in (*own, *answer):
            counts[term.name] = counts.get(term.name, 0) + 1
    first = sorted(counts, key=lambda name: -counts[name])[:4]
    assert set(first) == {*MATTERS["music"], *MATTERS["video"]}, counts


def make_term(name, mean=0.0):
    return Term(name=name, column=0, mean=mean, std=1.0, noise=0.01)


def test_words_of_both_sides_and_numbers():
    tempo, cuts, light = make_term("tempo", 110.0), make_term("cuts", 12.0), make_term("light")
    slow = {"music": [(tempo, 72.0), (make_term("mode"), -1.0)], "video": [(cuts, 6.0), (light, 1.0)]}
    assert say_terms(slow) == "both slow (tempo 72, cuts every 10.0 s); music: minor; video: bright"
    unlike = {"music": [(tempo, 140.0)], "video": [(cuts, 0.0)]}
    assert say_terms(unlike) == "music: fast (tempo 140); video: few cuts (no cuts)"
    assert say_terms({"music": [], "video": [(light, -1.0)]}) == "video: dark"
    assert say_terms({"music": [], "video": []}) == ""
    assert set(KINDRED_WORDS) <= {*AUDIO, *VIDEO}


def test_a_pair_that_agrees_is_explained_and_its_words_are_those_of_its_values(embedder):
    vectors = {side: np.array([t.mean for t in embedder.checkpoint.terms[side]], np.float32) for side in NAMES}
    for side, name, sign in (("music", "tempo", -2), ("video", "cuts", -1.9)):
        vectors[side][NAMES[side].index(name)] += sign * SPREADS[name]
    (text,) = explain_answers(embedder, "video", vectors["video"], [vectors["music"]])
    assert re.fullmatch(r"both slow \((tempo 59|tempo 60|tempo 61), cuts every 2\d\.\d s\)", text)


@pytest.mark.parametrize("case", ["network", "vmnet2017", "one side"])
def test_where_features_are_no_descriptors_nothing_is_said(tmp_path, case):
    fingerprints = {
        "network": {"audio": Fingerprint("musicnn"), "video": Fingerprint("efficientnet")},
        "vmnet2017": FINGERPRINTS | {"audio": Fingerprint("descriptors_audio", {"preset": "vmnet2017"})},
        "one side": FINGERPRINTS | {"audio": Fingerprint("musicnn")},
    }[case]
    checkpoint = train(tmp_path, draw_pairs(100, 1), fingerprints)
    assert checkpoint.terms == {} and not can_explain(Embedder(checkpoint))


def test_descriptors_within_a_fusion_are_found_at_their_place(tmp_path):
    plain, rng = draw_pairs(300, 1), np.random.default_rng(0)
    joint = np.concatenate([rng.normal(size=(300, 5)).astype(np.float32), plain.music], axis=1)
    parts = {"music": (FeaturePart("musicnn", 5), FeaturePart("descriptors_audio", len(AUDIO)))}
    pairs = PairArrays(plain.ids, plain.groups, joint, plain.video, parts)
    audio = Fingerprint.join([Fingerprint("musicnn"), FINGERPRINTS["audio"]])
    terms = train(tmp_path, pairs, FINGERPRINTS | {"audio": audio}).terms
    assert [(t.name, t.column) for t in terms["music"]] == [(name, 5 + place) for place, name in enumerate(AUDIO)]
    tempo = terms["music"][AUDIO.index("tempo")]
    assert tempo.mean == pytest.approx(110, abs=5) and tempo.std == pytest.approx(25, rel=0.15)


def test_the_checkpoint_keeps_terms(embedder, tmp_path):
    save_checkpoint(tmp_path, embedder.checkpoint)
    assert load_checkpoint(tmp_path).terms == embedder.checkpoint.terms
    save_checkpoint(tmp_path, replace(embedder.checkpoint, terms={}))
    assert '"terms"' not in (tmp_path / "config.json").read_text()


def test_answers_get_reasons_and_one_without_features_keeps_its_place(embedder, tmp_path):
    pairs = draw_pairs(3, 9)
    rows = [FeatureResult(FeatureRow(i, "done", "s"), pairs.music[int(i)]) for i in ("0", "1")]
    store = FeatureStore(tmp_path / "descriptors_audio")
    store.write(FeatureChunk(FINGERPRINTS["audio"], tuple(rows)))
    ranking = Ranking([Recommendation(rank, i, 0.5, {}) for rank, i in enumerate("201", 1)], "remark")
    found = add_reasons(ranking, embedder, "video", pairs.video[0], store)
    expected = explain_answers(embedder, "video", pairs.video[0], [pairs.music[0], pairs.music[1]])
    assert [item.reasons for item in found] == ["", *expected]
    assert [item.id for item in found] == ["2", "0", "1"] and found.remark == "remark"
    assert any(expected)
