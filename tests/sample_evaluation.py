"""A small evaluation to lay out."""

from __future__ import annotations

from typing import Any

import numpy as np

from vmnet_pipeline.evaluation.evaluate import Evaluation, evaluate_retrieval
from vmnet_pipeline.params import EvaluateParams


def evaluate_noisy_pairs(n: int = 50, ids: list[str] | None = None, **settings: Any) -> Evaluation:
    rng = np.random.default_rng(0)
    common = rng.standard_normal((n, 24))
    sides = [common + 1.3 * rng.standard_normal((n, 24)) for _ in range(2)]
    music, video = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in sides)
    groups = [f"song {i // 2}" for i in range(n)]
    return evaluate_retrieval(music, video, ids or [f"{i:03d}" for i in range(n)], groups, EvaluateParams(**settings))


def drop_new_figures(evaluation: dict[str, Any]) -> dict[str, Any]:
    """The same evaluation as a file written before there were pools, hubs, nDCG and another similarity."""
    directions = {
        name: {key: figure for key, figure in figures.items() if key not in ("pools", "hubness", "ndcg")}
        for name, figures in evaluation["directions"].items()
    }
    kept = {key: value for key, value in evaluation.items() if key not in ("similarity", "csls_neighbours")}
    return kept | {"directions": directions}
