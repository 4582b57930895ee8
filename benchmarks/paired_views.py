"""Paired features whose best possible ranking is known in closed form.

Two Gaussian views u, v of ten dimensions with given canonical correlations are lifted into frames of music and video
features: rotation, leaky rectifier (invertible, another one for each view), full-rank linear map; then nuisance that an
item's frames share and noise of each frame. There are far more feature dimensions than latent and nuisance ones, so u
and v can be recovered, and the likelihood ratio of the Gaussian pair gives the order that no other can beat.

With `clutter` some frames of each item show something else: another draw of the latent view, and a constant by which
such frames can be told, as title cards and silence can. The mean over frames then loses what a choice of frames keeps.
The optimum knows u and v, so with clutter it is a bound that need not be reachable.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vmnet_pipeline.pairs.sequences import stack_sequences
from vmnet_pipeline.types import PairArrays

CHUNK = 64


@dataclass(frozen=True)
class Design:
    """What is generated; the defaults are the published set."""

    n_train: int = 4096
    n_val: int = 1024
    n_test: int = 1024
    n_latent: int = 10
    strongest: float = 0.92
    weakest: float = 0.25
    music_shape: tuple[int, int] = (20, 500)
    video_shape: tuple[int, int] = (60, 2048)
    slope: float = 0.6
    n_nuisance: int = 20
    nuisance: float = 0.7
    frame_noise: float = 1.0
    clutter: float = 0.0  # mean share of frames that show something else
    keeps_frames: bool = False  # pairs as sequences too, of unlike length; needs memory for all frames

    @property
    def correlations(self) -> np.ndarray:
        return np.linspace(self.strongest, self.weakest, self.n_latent)


@dataclass(frozen=True)
class Views:
    """Pairs of one side with the latent views they were made from, (n, n_latent) each; perhaps also as sequences."""

    pairs: PairArrays
    u: np.ndarray
    v: np.ndarray
    sequences: PairArrays | None = None


class Lift:
    """Latent view -> frames of features; the map is drawn once per world, the noise per item."""

    def __init__(self, design: Design, shape: tuple[int, int], rng: np.random.Generator) -> None:
        self.design, self.shape = design, shape
        n = design.n_latent
        self.rotation = np.linalg.qr(rng.normal(size=(n, n)))[0]
        self.mixing = rng.normal(size=(n, shape[1])) / np.sqrt(n)
        self.nuisance = design.nuisance * rng.normal(size=(design.n_nuisance, shape[1])) / np.sqrt(design.n_nuisance)
        self.mark = rng.normal(size=shape[1]) if design.clutter else 0.0

    def frames(self, latent: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(n, n_latent) -> (n, T, D) float32."""
        level = self._mix(latent) + rng.normal(size=(len(latent), self.design.n_nuisance)) @ self.nuisance
        noise = rng.standard_normal((len(latent), *self.shape), dtype=np.float32)
        return level[:, None, :].astype(np.float32) + np.float32(self.design.frame_noise) * noise

    def _mix(self, latent: np.ndarray) -> np.ndarray:
        turned = latent @ self.rotation
        return np.where(turned > 0, turned, self.design.slope * turned) @ self.mixing

    def sequences(self, latent: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
        """(n, n_latent) -> n arrays (T, D) float32, T from half to all of the frames; the first is never clutter."""
        frames = self.frames(latent, rng)
        n, n_frames = frames.shape[:2]
        shows_other = rng.random((n, n_frames)) < rng.uniform(0, 2 * self.design.clutter, size=(n, 1))
        shows_other[:, 0] = False
        other = self._mix(rng.normal(size=(shows_other.sum(), latent.shape[1]))) - np.repeat(
            self._mix(latent), shows_other.sum(axis=1), axis=0
        )
        frames[shows_other] += (other + self.mark).astype(np.float32)
        lengths = rng.integers(n_frames // 2, n_frames + 1, size=n)
        return [item[:length] for item, length in zip(frames, lengths, strict=True)]

    def pooled(self, latent: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(n, n_latent) -> (n, D) float32, the mean over frames, made in chunks."""
        parts = [self.frames(latent[i : i + CHUNK], rng).mean(axis=1) for i in range(0, len(latent), CHUNK)]
        return np.concatenate(parts)


def generate(design: Design, seed: int) -> tuple[Views, Views, Views]:
    """Train, validation and test pairs of one world."""
    world, rng = np.random.default_rng((seed, 0)), np.random.default_rng((seed, 1))
    music, video = Lift(design, design.music_shape, world), Lift(design, design.video_shape, world)
    sides = []
    for name, n in (("train", design.n_train), ("val", design.n_val), ("test", design.n_test)):
        u = rng.normal(size=(n, design.n_latent))
        r = design.correlations
        v = r * u + np.sqrt(1.0 - r**2) * rng.normal(size=u.shape)
        ids = tuple(f"{name}-{i:06d}" for i in range(n))
        if design.keeps_frames:
            sides.append(_keep_frames(ids, music.sequences(u, rng), video.sequences(v, rng), u, v))
        else:
            sides.append(Views(PairArrays(ids, ids, music.pooled(u, rng), video.pooled(v, rng)), u, v))
    return sides[0], sides[1], sides[2]


def _keep_frames(
    ids: tuple[str, ...], music: list[np.ndarray], video: list[np.ndarray], u: np.ndarray, v: np.ndarray
) -> Views:
    pooled = PairArrays(ids, ids, *(np.stack([item.mean(axis=0) for item in side]) for side in (music, video)))
    whole = PairArrays(ids, ids, *(stack_sequences(side, max(map(len, side))) for side in (music, video)))
    return Views(pooled, u, v, whole)


def optimal_scores(views: Views, correlations: np.ndarray) -> np.ndarray:
    """(n, n) log-likelihood ratio of every (u_i, v_j), less a constant; ranking by it maximises Recall@K for all K."""
    a = correlations / (1.0 - correlations**2)
    b = correlations * a / 2.0
    return (views.u * a) @ views.v.T - (views.u**2 @ b)[:, None] - (views.v**2 @ b)[None, :]
