"""The examples run as they are."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from vmnet_pipeline.models.checkpoints import Checkpoint, save_checkpoint
from vmnet_pipeline.models.factory import build_model

pytestmark = pytest.mark.process

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize(("tower", "shape"), [("musicnn", [500]), ("vggish", [62, 512])])
def test_extract_embeddings_prints_the_shapes(tmp_path, tower, shape):
    config = {
        "music_tower": tower, "video_tower": tower, "music_shape": shape, "video_shape": [2048],
        "embedding_dim": 512, "dropout": 0.1, "standardise": False,
    }  # fmt: skip
    torch.manual_seed(0)
    save_checkpoint(tmp_path, Checkpoint(config, dict(build_model(**config).state_dict())))
    command = [sys.executable, str(EXAMPLES / "extract_embeddings.py"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert np.unique([line.count("(8, 512)") for line in done.stdout.splitlines()]).tolist() == [0, 1, 2]
    for text in ("(1, 512)", "(8, 512)", "(2, 512)", "similarity of each video to each music: (8, 8)"):
        assert text in done.stdout
