"""Comparing and tuning through the commands, killed by a signal in the middle."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import time
from contextlib import closing

import pandas as pd
import pytest
import yaml

from reference_data import make_reference_data

pytestmark = pytest.mark.slow


def kill_when(process, ready):
    """SIGKILL the whole process group once `ready()` holds; the run must not have ended by then."""
    deadline = time.monotonic() + 200
    while not ready() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert process.poll() is None
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def count_trials(path):
    if not path.exists():
        return 0
    try:
        with closing(sqlite3.connect(path)) as database:
            return database.execute("select count(*) from trials where state = 'COMPLETE'").fetchone()[0]
    except sqlite3.OperationalError:  # still being made
        return 0


@pytest.fixture
def given(project, tmp_path):
    """The project with feature files of one's own, and the arguments that point to them."""
    data = make_reference_data(tmp_path / "old", n_val=8)
    settings = {
        "compare": {"variants": {"vmnet": {}, "noisy": {"feature_noise": 0.5}}, "seeds": [0, 1]},
        "tune": {"space": {"learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}}, "prune_after_epochs": None},
    }
    (project.folder / "conf/local/parameters_sweeps.yml").write_text(yaml.safe_dump(settings, sort_keys=False))
    return project, f"pairs_dir={data},train.batch_size=8,train.epochs=8,train.n_threads=1"


def test_a_comparison_killed_in_the_middle_goes_on(given):
    project, params = given
    run = ("run", "--pipeline", "compare", "--params", params)
    models = project.folder / "data/06_models"
    kill_when(project.start(*run), lambda: list(models.glob("*/vmnet_musicnn/compare/vmnet/seed_1/state.safetensors")))
    output = project.kedro(*run)
    assert "already trained with these parameters" in output  # the first seed
    for text in ("Comparison on 10 test pairs", "vmnet x2", "minus vmnet", "neighbours", "comparison.json"):
        assert text in output
    (path,) = (project.folder / "data/08_reporting").rglob("comparison.json")
    first = json.loads(path.read_text())
    assert path.with_name("comparison.png").read_bytes().startswith(b"\x89PNG")
    output = project.kedro(*run)
    assert output.count("already trained with these parameters") == 4
    assert json.loads(path.read_text()) == first


def test_a_search_killed_in_the_middle_goes_on(given):
    project, params = given
    run = ("run", "--pipeline", "tune", "--params", f"{params},tune.n_trials=4")
    models = project.folder / "data/06_models"
    studies = models.glob("*/vmnet_musicnn/tune/study.db")
    kill_when(project.start(*run), lambda: any(count_trials(path) >= 1 for path in models.rglob("study.db")))
    output = project.kedro(*run)
    assert "Search: 4 complete, 0 pruned, 0 failed" in output
    assert len(list(studies)) == 1
    (path,) = (project.folder / "data/08_reporting").rglob("tuning_trials.csv")
    assert pd.read_csv(path)["state"].tolist() == ["complete"] * 4
    output = project.kedro(*run)
    assert "trials left" not in output

    # The settings that were found can be used as they are.
    best = path.with_name("best_settings.yml")
    (project.folder / "conf/local/parameters_train.yml").write_text(best.read_text())
    source = params.partition(",")[0]
    output = project.kedro("run", "--pipelines=train,evaluate", "--params", source)
    history = json.loads(next(models.rglob("training_history.json")).read_text())
    tuning = json.loads(path.with_name("tuning.json").read_text())
    assert max(row["val_mrr"] for row in history) == tuning["best"]["value"]


def test_another_search_on_the_same_study_is_one_clear_error(given):
    project, params = given
    project.kedro("run", "--pipeline", "tune", "--params", f"{params},tune.n_trials=1")
    output = project.kedro(
        "run", "--pipeline", "tune", "--params", f"{params},tune.n_trials=1,train.weight_decay=0.5", ok=False
    )
    assert "TuningError" in output
    assert "other training settings" in output
    assert "Traceback" not in output.split("TuningError")[-1]
