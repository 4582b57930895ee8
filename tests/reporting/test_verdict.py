from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from sample_evaluation import evaluate_noisy_pairs
from vmnet_pipeline.evaluation.evaluate import evaluate_retrieval
from vmnet_pipeline.params import EvaluateParams
from vmnet_pipeline.reporting.report import build_report
from vmnet_pipeline.reporting.verdict import choose_telling_k, judge_evaluation


def evaluate_random(n: int, seed: int = 0, *, back: bool = False, **settings: Any) -> dict[str, Any]:
    """Unrelated sides; with `back`, every video finds its music while music finds a wrong video first."""
    rng = np.random.default_rng(seed)
    music, video = (rng.standard_normal((n, 64)) for _ in range(2))
    sides = [side / np.linalg.norm(side, axis=1, keepdims=True) for side in (music, video)]
    return evaluate_retrieval(*sides, [str(i) for i in range(n)], params=EvaluateParams(**settings)).to_dict()


def test_it_says_above_chance_by_how_much_how_sure_and_with_what_pairs(evaluation: dict[str, Any]) -> None:
    sentence = judge_evaluation(evaluation)
    recalls = [figures["recall"]["10"] for figures in evaluation["directions"].values()]
    values = " and ".join(f"{100 * recall['value']:.1f}" for recall in recalls)
    width = max(50 * (recall["high"] - recall["low"]) for recall in recalls)
    assert sentence == (
        f"Better than chance in both directions (95 % level): R@10 is {values} %, by chance 20.0 %; 50 test pairs in "
        f"25 groups tell it to ±{width:.0f} points, enough for this but not to compare similar networks."
    )


def test_many_pairs_are_enough_and_few_are_not() -> None:
    many = evaluate_noisy_pairs(n=1200, resample_by="query").to_dict()
    assert re.search(r"1,200 test pairs tell it to ±[1-5] points, enough\.$", judge_evaluation(many))
    few = judge_evaluation(evaluate_random(18))
    assert few.startswith("Not better than chance (95 % level): R@1 is ")
    assert few.endswith("too few to exclude a useful network.")
    assert judge_evaluation(evaluate_random(900)).endswith("enough to say so.")


def test_one_direction_alone_is_named(evaluation: dict[str, Any]) -> None:
    there, back = evaluation["directions"].values()
    weak = {**back, "mrr": {**back["mrr"], "low": back["mrr"]["chance"] / 2}}
    one = evaluation | {"directions": {"music_to_video": there, "video_to_music": weak}}
    assert judge_evaluation(one).startswith("Better than chance for music → video only (95 % level)")


def test_a_control_is_judged_as_a_control(evaluation: dict[str, Any]) -> None:
    good = judge_evaluation(evaluate_noisy_pairs(shuffle_pairs=True).to_dict())
    assert good.startswith("Control with mismatched pairs: at chance, as it should be: R@")
    leak = judge_evaluation(evaluation | {"shuffled": True})
    assert leak.startswith("Control with mismatched pairs: above chance for music → video and video → music")


@pytest.mark.parametrize(("n", "groups"), [(2, "1 group"), (10, "5 groups")])
def test_so_few_groups_are_said_to_decide_nothing(n: int, groups: str) -> None:
    sentence = judge_evaluation(evaluate_noisy_pairs(n=n).to_dict())
    assert sentence.startswith("Chance cannot be excluded: R@")
    assert f"{n} test pairs in {groups} are too few for a verdict, which takes 6 independent ones." in sentence


@pytest.mark.parametrize(
    ("n", "ks", "expected"), [(50, (1, 5, 10, 25), "10"), (18, (1, 5, 10), "1"), (8, (10, 20), None)]
)
def test_the_cut_off_is_one_that_chance_seldom_reaches(n: int, ks: tuple[int, ...], expected: str | None) -> None:
    evaluation = evaluate_random(n, ks=ks)
    assert choose_telling_k(evaluation) == expected
    assert (f"R@{expected} is" if expected else "MRR is") in judge_evaluation(evaluation)


def test_the_report_begins_with_it(evaluation: dict[str, Any]) -> None:
    html = build_report(evaluation)
    assert f'<h2>Results</h2>\n  <p class="verdict">{judge_evaluation(evaluation)}</p>' in html
    assert "Recall@50" not in html
    assert "Left out, 100 % by definition in a pool of 50: R@50" in html
