"""Write the golden features anew, from other people's implementations of the networks.

    pip install --no-deps --require-hashes --target .peers -r requirements-peers.txt
    python tests/golden/make_feature_golden.py

Tolerance of the tests that read them: 1e-4 of the largest absolute value.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
PEERS = ROOT / ".peers"
GOLDEN = Path(__file__).resolve().parent


def write_musicnn_golden() -> None:
    from original_musicnn import run_original

    patches = np.random.default_rng(7).uniform(0, 5, (3, 187, 96)).astype(np.float32)
    for model in ("MSD_musicnn", "MTT_musicnn"):
        np.savez(GOLDEN / f"{model}.npz", **run_original(PEERS / "musicnn" / model, patches))


def write_lite0_golden() -> None:
    import torch
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0").eval()
    weights = ROOT / "data" / "06_models" / "weights" / "efficientnet-lite0-57934424.pth"
    network.load_state_dict(torch.load(weights, weights_only=True))
    pictures = np.random.default_rng(8).standard_normal((2, 3, 224, 224)).astype(np.float32)
    with torch.inference_mode():
        feature = network.extract_features(torch.from_numpy(pictures)).mean(dim=(2, 3)).numpy()
    np.savez(GOLDEN / "efficientnet_lite0.npz", feature=feature)


if __name__ == "__main__":
    sys.path[:0] = [str(GOLDEN), str(PEERS)]
    write_lite0_golden()
    write_musicnn_golden()
