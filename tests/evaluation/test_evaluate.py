"""The whole evaluation: both directions, the pool protocol, controls and refusals."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest

from vmnet_pipeline.errors import PairsError
from vmnet_pipeline.evaluation.evaluate import Evaluation, derange_pairs, evaluate_retrieval
from vmnet_pipeline.params import EvaluateParams

KS = (1, 5, 10, 20, 25, 50, 100)


def make_unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def make_pairs(n: int, noise: float, seed: int = 0, dim: int = 24) -> tuple[np.ndarray, np.ndarray, list[str]]:
    rng = np.random.default_rng(seed)
    common = rng.standard_normal((n, dim))
    sides = [make_unit(common + noise * rng.standard_normal((n, dim))) for _ in range(2)]
    return sides[0], sides[1], [f"{i:03d}" for i in range(n)]


def run_pool_protocol(music: np.ndarray, video: np.ndarray, pool: int, k: int) -> float:
    """Mean over full mini-batches of Recall@K; a stable sort puts the lower index first."""
    recalls = []
    for first in range(0, len(music) - pool + 1, pool):
        scores = music[first : first + pool].astype(float) @ video[first : first + pool].astype(float).T
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        recalls.append(np.mean([i in order[i] for i in range(pool)]))
    return float(np.mean(recalls))


def test_perfect_embeddings_score_one_in_both_directions() -> None:
    music, _, ids = make_pairs(40, 0.0)
    evaluation = evaluate_retrieval(music, music, ids)
    for figures in evaluation.directions.values():
        assert all(figure.value == 1.0 for figure in figures.recall.values())
        assert figures.median_rank.value == figures.mrr.value == figures.mean_average_precision.value == 1.0
    assert all(row["top_ids"][0] == row["id"] for row in evaluation.query_rows)


def test_unrelated_embeddings_are_at_chance() -> None:
    rng = np.random.default_rng(1)
    music, video = (make_unit(rng.standard_normal((400, 64))) for _ in range(2))
    evaluation = evaluate_retrieval(music, video, [str(i) for i in range(400)])
    for figures in evaluation.directions.values():
        assert_at_chance(figures, (10, 50, 100))


def assert_at_chance(figures: object, ks: tuple[int, ...]) -> None:
    """Within 4.5 standard errors: with the few figures looked at here, never by accident of a seed."""
    for k in ks:
        figure = figures.recall[str(k)]  # type: ignore[attr-defined]
        error = (figure.chance * (1 - figure.chance) / 400) ** 0.5
        assert abs(figure.value - figure.chance) < 4.5 * error


def test_directions_are_not_mixed_up() -> None:
    # Both music items are closest to video 0, but each video is closest to its own music item.
    music = make_unit(np.array([[1.0, 0.0], [0.9, 0.1]]))
    video = make_unit(np.array([[1.0, 0.0], [0.0, 1.0]]))
    evaluation = evaluate_retrieval(music, video, ["a", "b"], params=EvaluateParams(ks=(1,)))
    assert evaluation.directions["music_to_video"].recall["1"].value == 0.5
    assert evaluation.directions["video_to_music"].recall["1"].value == 1.0
    assert evaluation.directions["music_to_video"].reference_name == "recall_xy"
    turned = evaluate_retrieval(video, music, ["a", "b"], params=EvaluateParams(ks=(1,)))
    assert turned.directions["music_to_video"].recall["1"].value == 1.0


@pytest.mark.parametrize("pool", [8, 13, 16, 39, 50, 117])  # 13, 39 and 117 leave nothing over
@pytest.mark.parametrize("tied", [False, True])
def test_pool_protocol_equals_a_mean_over_mini_batches(pool: int, tied: bool) -> None:
    music, video, ids = make_pairs(117, 1.0)
    if tied:
        music, video = (make_unit(np.round(side * 4)) for side in (music, video))
        video[1::3] = video[::3]
    evaluation = evaluate_retrieval(music, video, ids, params=EvaluateParams(pool_size=pool, ks=(1, 3, 5)))
    for k in (1, 3, 5):
        there, back = (evaluation.directions[d].recall[str(k)].value for d in ("music_to_video", "video_to_music"))
        assert there == pytest.approx(run_pool_protocol(music, video, pool, k))
        assert back == pytest.approx(run_pool_protocol(video, music, pool, k))
    assert (evaluation.pool_size, evaluation.n_pools) == (pool, 117 // pool)
    assert evaluation.n_items + evaluation.n_dropped == 117
    assert evaluation.n_dropped == 117 % pool
    assert evaluation.ties == "lower index"


def test_answers_of_a_pool_come_from_that_pool() -> None:
    music, video, ids = make_pairs(30, 1.0)
    rows = evaluate_retrieval(music, video, ids, params=EvaluateParams(pool_size=10)).query_rows
    for row in rows:
        assert row["pool"] == int(row["id"]) // 10
        assert {int(answer) // 10 for answer in row["top_ids"]} == {row["pool"]}


def test_set_smaller_than_the_pool_is_searched_whole_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    music, video, ids = make_pairs(30, 1.0)
    with caplog.at_level(logging.WARNING):
        evaluation = evaluate_retrieval(music, video, ids, params=EvaluateParams(pool_size=1024))
    assert (evaluation.pool_size, evaluation.n_pools, evaluation.n_dropped) == (30, 1, 0)
    assert "Only 30 items for pools of 1024" in evaluation.warnings[0]
    assert "Only 30 items" in caplog.text


def test_mismatched_pairs_fall_to_chance() -> None:
    music, video, ids = make_pairs(400, 0.3)
    groups = [f"song {i // 2}" for i in range(400)]
    straight = evaluate_retrieval(music, video, ids, groups)
    control = evaluate_retrieval(music, video, ids, groups, EvaluateParams(shuffle_pairs=True))
    assert straight.directions["music_to_video"].recall["1"].value > 0.9
    assert control.shuffled
    assert control.warnings
    for figures in control.directions.values():
        assert figures.recall["1"].value < 0.02
        assert_at_chance(figures, (10, 50, 100))


def test_mismatched_pairs_of_several_pools_stay_in_their_pool() -> None:
    music, _, ids = make_pairs(100, 0.0)
    control = evaluate_retrieval(music, music, ids, params=EvaluateParams(pool_size=20, shuffle_pairs=True))
    assert control.n_pools == 5
    assert min(row["rank"] for row in control.query_rows) > 1  # every item finds itself first, and that is wrong now


def test_intervals_follow_the_chosen_unit() -> None:
    music, video, ids = make_pairs(30, 1.5)
    rows = np.repeat(np.arange(30), 4)  # four copies of each clip: nothing new is known
    ids, groups = [f"{i}" for i in range(120)], [f"song {row}" for row in rows]
    by_group = evaluate_retrieval(music[rows], video[rows], ids, groups)
    by_query = evaluate_retrieval(music[rows], video[rows], ids, groups, EvaluateParams(resample_by="query"))
    ungrouped = evaluate_retrieval(music[rows], video[rows], ids)
    widths = [measure_width(evaluation) for evaluation in (by_group, by_query, ungrouped)]
    assert widths[0] > 1.5 * widths[1]
    assert widths[1] == widths[2]
    assert [e.resampled_by for e in (by_group, by_query, ungrouped)] == ["group", "query", "query"]


def measure_width(evaluation: Evaluation) -> float:
    figure = evaluation.directions["music_to_video"].recall["10"]
    assert figure.low is not None
    assert figure.high is not None
    return figure.high - figure.low


@pytest.mark.parametrize("sizes", [[1] * 7, [3, 1, 1, 2], [2, 2], [5, 5], [1, 1]])
def test_derangement_avoids_own_group(sizes: list[int]) -> None:
    groups = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))
    for seed in range(20):
        partner = derange_pairs(groups, seed)
        assert sorted(partner) == list(range(len(groups)))
        assert (groups[partner] != groups).all()
    assert derange_pairs(groups, 3).tolist() == derange_pairs(groups, 3).tolist()


def test_derangement_of_one_large_group_still_moves_everything() -> None:
    partner = derange_pairs([0, 0, 0, 0, 1], 0)
    assert sorted(partner) == list(range(5))
    assert (partner != np.arange(5)).all()
    with pytest.raises(PairsError, match="two or more"):
        derange_pairs([0], 0)


def test_positives_by_group_accept_any_clip_of_the_song() -> None:
    music, video, ids = make_pairs(40, 2.0)
    groups = [f"song {i % 10}" for i in range(40)]
    alone = evaluate_retrieval(music, video, ids, groups)
    song = evaluate_retrieval(music, video, ids, groups, EvaluateParams(positives="group"))
    assert (alone.max_positives, song.max_positives) == (1, 4)
    for direction, figures in song.directions.items():
        single = alone.directions[direction]
        assert all(figures.recall[str(k)].value >= single.recall[str(k)].value for k in KS)
        assert figures.recall["1"].chance == pytest.approx(4 / 40)
        assert figures.mean_average_precision.value != figures.mrr.value
    with pytest.raises(PairsError, match="positives: group"):
        evaluate_retrieval(music, video, ids, None, EvaluateParams(positives="group"))


def test_ndcg_of_groups_has_its_chance_level() -> None:
    rng = np.random.default_rng(3)
    music, video = (make_unit(rng.standard_normal((600, 64))) for _ in range(2))
    groups = [f"song {i // (1 + i % 3)}" for i in range(600)]
    params = EvaluateParams(positives="group")
    figures = evaluate_retrieval(music, video, [str(i) for i in range(600)], groups, params).directions
    assert figures["music_to_video"].ndcg.chance == figures["video_to_music"].ndcg.chance
    for direction in figures.values():
        assert direction.ndcg.low < direction.ndcg.chance < direction.ndcg.high  # type: ignore[operator]
    song = evaluate_retrieval(music, music, [str(i) for i in range(600)], groups, params).directions["music_to_video"]
    assert song.recall["1"].value == 1.0
    assert song.ndcg.value < 1.0  # other clips of the song are not found first
    alone = evaluate_retrieval(music, music, [str(i) for i in range(600)]).directions["music_to_video"]
    assert alone.ndcg.value == 1.0


def make_hub(n: int = 120) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Pairs with one video that is close to all music."""
    music, video, ids = make_pairs(n, 1.2, dim=32)
    music = make_unit(music + 0.12)
    video = make_unit(video + 0.12)
    video[7] = make_unit(music.mean(axis=0, keepdims=True))[0]
    return music, video, ids


def test_hubs_are_counted_among_the_first_ten() -> None:
    music, video, ids = make_hub()
    evaluation = evaluate_retrieval(music, video, ids, params=EvaluateParams(top_n=3))
    top = np.argsort(-(music @ video.T), axis=1)[:, :10]
    counts = np.bincount(top.reshape(-1), minlength=120)
    hubness = evaluation.directions["music_to_video"].hubness
    assert counts.argmax() == 7
    assert hubness["max"] == counts.max()
    assert hubness["unreached"] == pytest.approx((counts == 0).mean())
    assert hubness["k"] == 10.0
    assert {len(row["top_ids"]) for row in evaluation.query_rows} == {3}
    small = evaluate_retrieval(music[:6], video[:6], ids[:6]).directions["music_to_video"].hubness
    assert small == {"k": 6.0, "max": 6.0, "skewness": 0.0, "unreached": 0.0}


def test_csls_ranks_as_a_naive_loop_and_lowers_hubs() -> None:
    music, video, ids = make_hub()
    plain = evaluate_retrieval(music, video, ids)
    corrected = evaluate_retrieval(music, video, ids, params=EvaluateParams(similarity="csls", csls_neighbours=5))
    scores = (music @ video.T).astype(float)
    csls = 2 * scores - np.sort(scores, axis=1)[:, -5:].mean(axis=1, keepdims=True)
    csls -= np.sort(scores, axis=0)[-5:].mean(axis=0)
    for direction, matrix in (("music_to_video", csls), ("video_to_music", csls.T)):
        ranks = [row["rank"] for row in corrected.query_rows if row["direction"] == direction]
        assert ranks == (1 + (matrix > np.diag(matrix)[:, None]).sum(axis=1)).tolist()
    there = "music_to_video"
    assert corrected.directions[there].hubness["max"] < plain.directions[there].hubness["max"]
    assert (plain.similarity, plain.csls_neighbours) == ("cosine", None)
    assert (corrected.similarity, corrected.csls_neighbours) == ("csls", 5)


def test_centred_ranks_as_without_the_mean_of_each_side_and_lowers_hubs() -> None:
    music, video, ids = make_pairs(80, 1.5)
    common = 3.0 * make_unit(np.random.default_rng(5).standard_normal((1, music.shape[1])))
    music, video = make_unit(music + common), make_unit(video - 0.5 * common)
    plain, centred = (
        evaluate_retrieval(music, video, ids, params=EvaluateParams(similarity=name)) for name in ("cosine", "centred")
    )
    sides = [make_unit(side - side.mean(axis=0)) for side in (music, video)]
    scores = sides[0] @ sides[1].T
    ranks = [1 + (scores[i] > scores[i, i]).sum() for i in range(80)]
    found = [row["rank"] for row in centred.query_rows if row["direction"] == "music_to_video"]
    np.testing.assert_array_equal(found, ranks)
    assert centred.similarity == "centred"
    for name in ("music_to_video", "video_to_music"):
        assert centred.directions[name].hubness["max"] < plain.directions[name].hubness["max"]


def test_csls_of_pools_looks_at_its_pool_only() -> None:
    music, video, ids = make_pairs(60, 1.0)
    params = EvaluateParams(pool_size=20, similarity="csls")
    rows = evaluate_retrieval(music, video, ids, params=params).query_rows
    alone = evaluate_retrieval(music[20:40], video[20:40], ids[20:40], params=params).query_rows
    assert [row["rank"] for row in rows if row["pool"] == 1] == [row["rank"] for row in alone]


def test_repeated_ids_are_positives_of_each_other() -> None:
    music, video, ids = make_pairs(20, 1.0)
    evaluation = evaluate_retrieval(music, video, [*ids[:10], *ids[:10]])
    assert {row["n_positives"] for row in evaluation.query_rows} == {2}


def test_result_is_plain_json_and_complete() -> None:
    music, video, ids = make_pairs(60, 1.0)
    evaluation = evaluate_retrieval(music, video, ids, [f"g{i // 3}" for i in range(60)])
    content = evaluation.to_dict()
    assert json.loads(json.dumps(content, allow_nan=False)) == content
    assert content["n_groups"] == 20
    assert content["resampled_by"] == "group"
    for figures in content["directions"].values():
        assert list(figures["recall"]) == [str(k) for k in KS]
        assert figures["recall"]["100"] == {"value": 1.0, "low": 1.0, "high": 1.0, "chance": 1.0}
        for figure in (*figures["recall"].values(), figures["median_rank"], figures["mrr"]):
            assert figure["low"] <= figure["value"] <= figure["high"]
    assert "query_rows" not in content


def test_rows_hold_rank_and_answers_of_every_query() -> None:
    music, video, ids = make_pairs(30, 1.0)
    evaluation = evaluate_retrieval(music, video, ids, params=EvaluateParams(top_n=4))
    assert len(evaluation.query_rows) == 60
    for row in evaluation.query_rows:
        assert len(row["top_ids"]) == 4
        assert (row["id"] in row["top_ids"]) == (row["rank"] <= 4)
        assert row["group"] is None
    json.dumps(evaluation.query_rows)


def test_order_of_items_does_not_matter() -> None:
    music, video, ids = make_pairs(50, 1.0)
    order = np.random.default_rng(1).permutation(50)
    plain = evaluate_retrieval(music, video, ids)
    moved = evaluate_retrieval(music[order], video[order], [ids[i] for i in order])
    assert list_values(plain) == pytest.approx(list_values(moved))


def list_values(evaluation: Evaluation) -> list[float]:
    return [
        figure.value
        for figures in evaluation.directions.values()
        for figure in (*figures.recall.values(), figures.median_rank, figures.mrr, figures.ndcg)
    ]


def test_memory_mapped_and_float64_sides_give_the_same(tmp_path: object) -> None:
    music, video, ids = make_pairs(30, 1.0)
    np.save(f"{tmp_path}/music.npy", music)
    mapped = np.load(f"{tmp_path}/music.npy", mmap_mode="r")
    expected = evaluate_retrieval(music, video, ids).to_dict()
    assert evaluate_retrieval(mapped, video.astype(np.float64), ids).to_dict() == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m, v, i: (m[:-1], v, i), r"unequal.*'music': 9, 'video': 10"),
        (lambda m, v, i: (m, v, i[:-1]), "'ids': 9"),
        (lambda m, v, i: (m, make_unit(v[:, :5]), i), "24 dimensions, video 5"),
        (lambda m, v, i: (m * 2, v, i), r"Music embeddings of 10 item\(s\) are not of unit length: 000 \(2\)"),
        (lambda m, v, i: (m, np.where(np.arange(10)[:, None] == 3, np.nan, v), i), r"Video.*NaN.*\['003'\]"),
        (lambda m, v, i: (m, np.zeros_like(v), i), "Video.*unit length"),
        (lambda m, v, i: (m[:1], v[:1], i[:1]), "two or more"),
        (lambda m, v, i: (m[0], v, i), "shape"),
    ],
)
def test_unusable_input_is_refused(change: object, message: str) -> None:
    with pytest.raises(PairsError, match=message):
        evaluate_retrieval(*change(*make_pairs(10, 1.0)))  # type: ignore[operator]


def test_groups_of_another_length_are_refused() -> None:
    with pytest.raises(PairsError, match="'groups': 2"):
        evaluate_retrieval(*make_pairs(10, 1.0), groups=["a", "b"])
