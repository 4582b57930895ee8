"""Feature files in the layout of the reference, small and with something to learn in them."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def make_music(latent: np.ndarray, kind: str, index: int) -> np.ndarray:
    """A music feature that carries `latent` in its first channels; kinds are those that extractors give."""
    rng = np.random.default_rng(1000 + index)
    if kind == "raw_vggish":
        feature = rng.random((62, 512, 6, 4), dtype=np.float32)
        feature[:, : len(latent)] += latent[None, :, None, None]
    elif kind == "pooled_vggish":
        feature = rng.random((62, 512), dtype=np.float32)
        feature[:, : len(latent)] += latent
    elif kind == "musicnn":
        feature = rng.random((18 + index % 3, 24), dtype=np.float32)
        feature[:, : len(latent)] += latent
    else:
        feature = rng.random(24, dtype=np.float32)
        feature[: len(latent)] += latent
    return feature.astype(np.float32)


def make_reference_data(
    folder: Path, *, kind: str = "musicnn", n_train: int = 24, n_test: int = 10, n_val: int = 0, separator: str = ","
) -> Path:
    """Write train, test and perhaps val; ids are `000`, `001`, ... and the video feature is 30 wide."""
    rng = np.random.default_rng(5)
    index = 0
    for side, count in (("train", n_train), ("test", n_test), ("val", n_val)):
        ids = [f"{k:03d}" for k in range(index, index + count)]
        index += count
        if not ids:
            continue
        data_dir = folder / ("train" if side == "val" else side)
        for modality in ("audio", "video"):
            (data_dir / modality).mkdir(parents=True, exist_ok=True)
        header = f"id{separator}note\n" if separator != "," else "id\n"
        tail = f"{separator}x" if separator != "," else ""
        (folder / f"{side}.csv").write_text(header + "".join(f"{item_id}{tail}\n" for item_id in ids))
        for item_id in ids:
            latent = 3 * rng.standard_normal(6).astype(np.float32)
            np.save(data_dir / "audio" / f"{item_id}.npy", make_music(latent, kind, int(item_id)))
            video = rng.random((5 + int(item_id) % 4, 30), dtype=np.float32)
            video[:, :6] += latent
            np.save(data_dir / "video" / f"{item_id}.npy", video)
    return folder
