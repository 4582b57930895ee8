"""Sound to try backends on, and where weights and other people's implementations lie."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
RATE_HZ = 16_000


def make_rich_sound(duration_s: float, seed: int = 0) -> np.ndarray:
    """(n,) float32 at 16 kHz: gliding harmonics, noise bursts, near silence and a click, so that every band is used."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(duration_s * RATE_HZ)) / RATE_HZ
    glide = 2 * np.pi * (110 * t + 25 * np.sin(2 * np.pi * 0.3 * t))
    sound = sum(np.sin(k * glide) / k for k in range(1, 40) if k * 200 < RATE_HZ / 2)
    bursts = rng.standard_normal(len(t)) * np.exp(-8 * (t % 0.5))
    loudness = np.where(t % 3 < 2.5, 1.0, 1e-4)
    sound = loudness * (0.2 * sound + 0.3 * bursts)
    sound[len(sound) // 3] = 1.0
    return np.clip(sound, -1, 1).astype(np.float32)


@pytest.fixture(scope="session")
def make_sound():
    return make_rich_sound


@pytest.fixture(scope="session")
def rich_sound() -> np.ndarray:
    return make_rich_sound(8.0)


@pytest.fixture
def write_wav(tmp_path: Path):
    def write(samples: np.ndarray, name: str = "sound.wav") -> str:
        path = tmp_path / name
        with wave.open(str(path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(RATE_HZ)
            file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
        return str(path)

    return write


@pytest.fixture(scope="session")
def weights_dir() -> Path:
    """Where set-up puts the weights that come in packages."""
    return ROOT / "data" / "06_models" / "weights"


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    return ROOT / "tests" / "golden"


@pytest.fixture(scope="session")
def peers_dir() -> Path:
    folder = ROOT / ".peers"
    if not folder.is_dir():
        pytest.skip("peers are not installed: see requirements-peers.txt")
    return folder
