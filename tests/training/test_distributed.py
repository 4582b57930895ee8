from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vmnet_pipeline.params import TrainParams
from vmnet_pipeline.training import train_model
from vmnet_pipeline.types import PairArrays

pytestmark = pytest.mark.process

# What the processes of a group run: the first one trains, the other one follows. Trainings that end with an error
# come first: the other process must be there for the next one.
SCRIPT = """
import json, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
sys.path[:0] = [sys.argv[1], sys.argv[2]]
from test_distributed import read_pairs
from vmnet_pipeline.errors import TrainingError
from vmnet_pipeline.params import TrainParams
from vmnet_pipeline.training import distributed, train_model
distributed.join_group()
folder = Path(sys.argv[3])
if distributed.rank():
    distributed.run_follower()
else:
    train, val = read_pairs(folder, 1), read_pairs(folder, 2)
    cases = json.loads(sys.argv[4])
    def give_up(record):
        raise KeyError("given up")
    for settings, on_epoch in (({}, give_up), ({"learning_rate": 1e30, "standardise": False}, None)):
        params = TrainParams(**{**cases["vmnet"], **settings})
        try:
            train_model(train, val, params, state_dir=folder / "failed", on_epoch=on_epoch)
        except (KeyError, TrainingError) as error:
            print(error, file=sys.stderr)
        else:
            sys.exit("no error")
    for name, settings in cases.items():
        result = train_model(train, val, TrainParams(**settings), state_dir=folder / name, progress=False)
        history = [record.to_row() for record in result.history]
        torch.save({"tensors": result.tensors, "history": history}, folder / f"{name}.pt")
    distributed.stop_followers()
distributed.leave_group()
"""
COMMON: dict[str, Any] = {
    "epochs": 3,
    "batch_size": 12,
    "device": "cpu",
    "n_threads": 1,
    "positives_by": "group",
    "learning_rate": 1e-3,
    "adam_epsilon": 1e-3,  # else Adam would make whole steps of the rounding errors of gradients that are zero
    "keep": "last",
}
NO_DROPOUT = {"embedding_dim": 8, "dropout": 0.0}
CASES: dict[str, dict[str, Any]] = {
    "vmnet": {**COMMON, "model": NO_DROPOUT},
    "as tensorflow": {
        **COMMON,
        "model": NO_DROPOUT,
        "population_variance": True,
        "epsilon_before_correction": True,
    },
    "contrastive": {
        **COMMON,
        "model": NO_DROPOUT,
        "loss": {"name": "contrastive", "memory_size": 20},
        "average_decay": 0.9,
        "weight_decay": 0.1,
    },
}


def write_pairs(folder: Path, seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=(n, 4))
    for side, shape in (("music", (18, 5)), ("video", (7,))):
        lift = np.random.default_rng(len(shape)).normal(size=(4, int(np.prod(shape))))
        view = np.tanh(shared @ lift) + 0.1 * rng.normal(size=(n, lift.shape[1]))
        np.save(folder / f"{side}_{seed}.npy", view.reshape(n, *shape).astype(np.float32))


def read_pairs(folder: Path, seed: int) -> PairArrays:
    """Pairs as they are packed: views of mapped files that do not start at the beginning."""
    music, video = (np.load(folder / f"{side}_{seed}.npy", mmap_mode="r")[2:] for side in ("music", "video"))
    ids = tuple(map(str, range(len(music))))
    return PairArrays(ids, tuple(str(i // 2) for i in range(len(music))), music, video)


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def run_group(folder: Path, cases: dict[str, Any], n_processes: int = 2) -> None:
    here = Path(__file__).parent
    arguments = [str(here), str(here.parents[1] / "src"), str(folder), json.dumps(cases)]
    (folder / "process.py").write_text(SCRIPT)
    processes = []
    port = str(free_port())
    for rank in range(n_processes):
        group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(n_processes)}
        own = {"RANK": str(rank), "LOCAL_RANK": str(rank), "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
        processes.append(
            subprocess.Popen(
                [sys.executable, "-W", "ignore", str(folder / "process.py"), *arguments],
                env={**group, **own, "PATH": "", "HOME": str(folder)},
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    try:
        for process in processes:
            _, errors = process.communicate(timeout=120)
            assert process.returncode == 0, errors
    finally:
        for process in processes:
            process.kill()


@pytest.fixture(scope="module")
def group_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("group")
    write_pairs(folder, 1, 40)
    write_pairs(folder, 2, 14)
    run_group(folder, CASES)
    return folder


@pytest.mark.parametrize("name", CASES)
def test_two_processes_train_as_one_with_the_whole_batch(group_folder: Path, tmp_path: Path, name: str) -> None:
    shared = torch.load(group_folder / f"{name}.pt")
    train, val = read_pairs(group_folder, 1), read_pairs(group_folder, 2)
    alone = train_model(train, val, TrainParams(**CASES[name]), state_dir=tmp_path)
    assert len(alone.history) == 3
    for row, record in zip(shared["history"], alone.history, strict=True):
        expected = record.to_row()
        for term in expected.keys() - {"seconds"}:
            assert row[term] == pytest.approx(expected[term], rel=1e-5, abs=1e-5), term
    assert shared["tensors"].keys() == alone.tensors.keys()
    for key, tensor in alone.tensors.items():
        torch.testing.assert_close(shared["tensors"][key], tensor, rtol=1e-5, atol=1e-5, msg=key)
