"""Backends of two made-up spaces that share text: what a file is about is written in it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import ClassVar

import numpy as np

from vmnet_pipeline.types import Fingerprint, Modality, PreparedItem

N_TOPICS, SHARED_DIM, AUDIO_DIM, VIDEO_DIM = 24, 20, 16, 12
TOPICS = np.random.default_rng(0).normal(size=(N_TOPICS, SHARED_DIM))


def turn(dim: int, seed: int) -> np.ndarray:
    """(SHARED_DIM, dim): how a space sees what texts mean."""
    return np.random.default_rng(seed).normal(size=(SHARED_DIM, dim)) / np.sqrt(SHARED_DIM)


def mean(text: str) -> np.ndarray:
    """What a text means: near that of its topic, `topic N ...`; of others anywhere."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
    noise = np.random.default_rng(seed).normal(size=SHARED_DIM)
    words = text.split()
    return TOPICS[int(words[1])] + 0.2 * noise if words[:1] == ["topic"] else noise


class ToyBackend:
    """(3, D) float32 per file, whose text says what it is about."""

    space: ClassVar[str | None] = None
    dim: ClassVar[int] = 0
    seed: ClassVar[int] = 0
    name: ClassVar[str] = ""
    modality: ClassVar[Modality]

    def __init__(self, params, *, weights_dir) -> None:
        self.weights_dir = weights_dir

    def embed_text(self, texts):
        rows = np.stack([mean(text) for text in texts]) @ turn(self.dim, self.seed)
        return (5.0 * rows).astype(np.float32)  # not of unit length, as some networks give them

    def fingerprint(self) -> Fingerprint:
        return Fingerprint(self.name, {})

    def load(self) -> None:
        pass

    def prepare(self, path: str) -> PreparedItem:
        text = json.loads(Path(path).with_suffix(".json").read_text())
        return PreparedItem(np.repeat(self.embed_text([text]), 3, axis=0), 3)

    def infer(self, inputs):
        return inputs

    def finish(self, feature):
        return feature

    def pool(self, feature):
        return feature if feature.ndim == 1 else feature.mean(axis=0)


class ToyAudio(ToyBackend):
    name, modality, space, dim, seed = "toy_audio", "audio", "toy-clap", AUDIO_DIM, 1


class ToyVideo(ToyBackend):
    name, modality, space, dim, seed = "toy_video", "video", "toy-clip", VIDEO_DIM, 2


class ToyVideoOfOneSpace(ToyBackend):
    name, modality, space, dim, seed = "toy_joint_video", "video", "toy-clap", AUDIO_DIM, 1


class ToyPlain(ToyBackend):
    name, modality, dim, seed = "toy_plain", "video", VIDEO_DIM, 3


def draw_pairs(video: type[ToyBackend], n: int, seed: int):
    """Features of n pairs; the two sides of a pair speak of one topic, in words of their own."""
    from vmnet_pipeline.types import PairArrays

    rng = np.random.default_rng(seed)
    topics = rng.integers(0, N_TOPICS, n)
    sides = []
    for kind in (ToyAudio, video):
        backend = kind({}, weights_dir=".")
        sides.append(backend.embed_text([f"topic {topic} {kind.name} {rng.integers(10**9)}" for topic in topics]))
    ids = tuple(f"{seed}-{place}" for place in range(n))
    return PairArrays(ids, tuple(f"topic {topic}" for topic in topics), *sides)
