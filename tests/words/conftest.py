"""The sentence encoder, and a small library that it is asked about."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vmnet_pipeline.backends.musicnn_tags import MAGNATAGATUNE_TAGS
from vmnet_pipeline.words.qualities import Qualities
from vmnet_pipeline.words.sentences import SentenceEncoder
from vmnet_pipeline.words.understanding import Listener

ROOT = Path(__file__).parents[2]
COLUMNS = (
    *(f"MTT_musicnn:{tag}" for tag in MAGNATAGATUNE_TAGS),
    "descriptors_audio:tempo",
    "descriptors_audio:loudness",
)
TRACKS = {
    "sonata": {"piano": 0.9, "classical": 0.8, "slow": 0.6, "quiet": 0.5, "no vocals": 0.5, "no vocal": 0.4},
    "etude": {"piano": 0.9, "classical": 0.7, "fast": 0.6, "no vocals": 0.4},
    "ballad": {"piano": 0.8, "drums": 0.7, "vocals": 0.8, "singing": 0.7, "female": 0.6, "slow": 0.5, "pop": 0.6},
    "rave": {"techno": 0.9, "electronic": 0.8, "beat": 0.8, "drums": 0.6, "loud": 0.5, "fast": 0.7, "dance": 0.6},
    "riff": {"guitar": 0.9, "rock": 0.9, "metal": 0.6, "drums": 0.8, "loud": 0.8, "male": 0.5, "vocals": 0.6},
    "mass": {"choir": 0.9, "choral": 0.8, "opera": 0.4, "vocals": 0.6, "slow": 0.6},
}
"""Track to likely tags; others have 0.02."""


def make_raw():
    rows = np.full((len(TRACKS), len(COLUMNS)), 0.02)
    for row, tags in zip(rows, TRACKS.values(), strict=True):
        for tag, value in tags.items():
            row[COLUMNS.index(f"MTT_musicnn:{tag}")] = value
    odds = np.log(rows / (1 - rows))
    odds[:, -2:] = [[70, -30], [150, -25], [75, -18], [140, -8], [130, -6], [60, -25]]
    return odds


@pytest.fixture(scope="session")
def weights_dir() -> Path:
    """Where set-up puts the weights that come in packages."""
    return ROOT / "data" / "06_models" / "weights"


@pytest.fixture(scope="session")
def encoder(weights_dir):
    return SentenceEncoder(weights_dir)


@pytest.fixture(scope="session")
def listener(encoder):
    return Listener(COLUMNS, encoder)


@pytest.fixture(scope="session")
def library():
    return Qualities.measure(tuple(TRACKS), COLUMNS, make_raw())
