"""Baselines: regularised CCA, PLS, nearest neighbours after PCA; their settings are chosen on validation pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vmnet_pipeline.records import PairArrays

    Score = Callable[[PairArrays], np.ndarray]  # pairs -> (n, n) scores of music i with video j

RIDGES = (0.1, 0.3, 1.0, 3.0, 10.0)
WIDTHS = (5, 8, 10, 12, 16, 32)


def cosine(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(n, m) cosine similarities."""
    return (x / np.linalg.norm(x, axis=1, keepdims=True)) @ (y / np.linalg.norm(y, axis=1, keepdims=True)).T


def ranks_of(scores: np.ndarray) -> np.ndarray:
    """(2, n) ranks of the diagonal, along rows and along columns."""
    own = np.diag(scores)
    return np.stack([1 + (scores > own[:, None]).sum(axis=1), 1 + (scores > own[None, :]).sum(axis=0)])


def recall(ranks: np.ndarray, k: int = 10) -> float:
    """Recall at K in %, mean of both directions."""
    return 100.0 * float((ranks <= k).mean())


def _choose(candidates: Iterator[Score], val: PairArrays) -> Score:
    return max(candidates, key=lambda score: recall(ranks_of(score(val))))


def _linear(mx: np.ndarray, my: np.ndarray, px: np.ndarray, py: np.ndarray) -> Score:
    return lambda pairs: cosine((pairs.music - mx) @ px, (pairs.video - my) @ py)


def fit_cca(train: PairArrays, val: PairArrays) -> Score:
    """Ridge-regularised CCA; variates weighted by their correlation or not, whichever is better on validation."""
    mx, my = train.music.mean(axis=0), train.video.mean(axis=0)
    x, y = (train.music - mx).astype(np.float64), (train.video - my).astype(np.float64)
    (ex, ux), (ey, uy) = np.linalg.eigh(x.T @ x / len(x)), np.linalg.eigh(y.T @ y / len(y))
    uy, ey = uy[:, -1024:], ey[-1024:]
    cross = ux.T @ (x.T @ (y @ uy)) / len(x)

    def candidates() -> Iterator[Score]:
        for ridge in RIDGES:
            sx, sy = (1.0 / np.sqrt(np.maximum(e, 0) + ridge * e.mean()) for e in (ex, ey))
            left, r, right = np.linalg.svd(sx[:, None] * cross * sy, full_matrices=False)
            for n in WIDTHS:
                px, py = ux @ (sx[:, None] * left[:, :n]), uy @ (sy[:, None] * right[:n].T)
                yield _linear(mx, my, px, py)
                yield _linear(mx, my, px * r[:n], py * r[:n])

    return _choose(candidates(), val)


def fit_pls(train: PairArrays, val: PairArrays) -> Score:
    """Partial least squares by singular vectors of the cross-covariance (scikit-learn's PLSSVD)."""
    from sklearn.cross_decomposition import PLSSVD

    n = min(64, train.music.shape[1], train.video.shape[1])
    fitted = PLSSVD(n_components=n).fit(train.music, train.video)

    def make(n: int) -> Score:
        def score(pairs: PairArrays) -> np.ndarray:
            x, y = fitted.transform(pairs.music, pairs.video)
            return cosine(x[:, :n], y[:, :n])

        return score

    return _choose((make(k) for k in (*WIDTHS, n)), val)


def fit_neighbours(train: PairArrays, val: PairArrays) -> Score:
    """A query's neighbours among the training items of its own kind, after PCA, stand in for it on the other side."""
    from sklearn.decomposition import PCA

    pca = [PCA(32, random_state=0).fit(side) for side in (train.music, train.video)]
    known = [pca[0].transform(train.music), pca[1].transform(train.video)]

    def make(n: int) -> Score:
        def score(pairs: PairArrays) -> np.ndarray:
            x, y = pca[0].transform(pairs.music), pca[1].transform(pairs.video)
            guesses = []
            for query, own, other in ((x, known[0], known[1]), (y, known[1], known[0])):
                nearest = np.argpartition(-cosine(query, own), n, axis=1)[:, :n]
                guesses.append(other[nearest].mean(axis=1))
            return cosine(guesses[0], y) + cosine(guesses[1], x).T

        return score

    return _choose((make(n) for n in (5, 20, 50, 100)), val)
