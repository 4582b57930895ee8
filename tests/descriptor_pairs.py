"""Pairs of descriptors of which few matter, and networks of them."""

import numpy as np

from vmnet_pipeline.backends.descriptors.names import AUDIO_DESCRIPTORS, VIDEO_DESCRIPTORS
from vmnet_pipeline.backends.registry import make_backend
from vmnet_pipeline.models.checkpoints import Checkpoint
from vmnet_pipeline.params import TrainParams
from vmnet_pipeline.training import train_model
from vmnet_pipeline.training.terms import measure_terms
from vmnet_pipeline.types import PairArrays

AUDIO, VIDEO = ([item.name for item in items] for items in (AUDIO_DESCRIPTORS, VIDEO_DESCRIPTORS))
MATTERS = {"music": ("tempo", "brightness"), "video": ("cuts", "light")}
NAMES = {"music": AUDIO, "video": VIDEO}
MEANS = {"tempo": 110.0, "cuts": 12.0}
SPREADS = {"tempo": 25.0, "cuts": 5.0}


def draw_pairs(n, seed):
    """Tempo goes with cuts, brightness with light, and nothing else has to do with anything."""
    rng = np.random.default_rng(seed)
    sides = {side: rng.normal(size=(n, len(names))) for side, names in NAMES.items()}
    for music, video in zip(MATTERS["music"], MATTERS["video"], strict=True):
        shared = rng.normal(size=n)
        sides["music"][:, AUDIO.index(music)] = shared + 0.1 * rng.normal(size=n)
        sides["video"][:, VIDEO.index(video)] = shared + 0.1 * rng.normal(size=n)
    for side, names in NAMES.items():
        for place, name in enumerate(names):
            sides[side][:, place] = sides[side][:, place] * SPREADS.get(name, 1.0) + MEANS.get(name, 0.0)
    ids = tuple(map(str, range(n)))
    return PairArrays(ids, ids, *(sides[side].astype(np.float32) for side in ("music", "video")))


FINGERPRINTS = {
    "audio": make_backend({"backend": "descriptors_audio", "weights_dir": "weights"}).fingerprint(),
    "video": make_backend({"backend": "descriptors_video", "weights_dir": "weights"}).fingerprint(),
}


def train(tmp_path, pairs, fingerprints=FINGERPRINTS, **model):
    settings = {"music_tower": "canonical", "video_tower": "canonical", "embedding_dim": 8, **model}
    params = TrainParams(epochs=3, batch_size=64, learning_rate=1e-4, device="cpu", n_threads=1, model=settings)
    result = train_model(pairs, None, params, state_dir=tmp_path)
    terms = measure_terms(result.build(), pairs, fingerprints, seed=0)
    return Checkpoint(result.model_config, result.tensors, fingerprints, terms=terms, parts=pairs.parts)
