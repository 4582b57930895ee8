from __future__ import annotations

import fcntl
from dataclasses import replace

import numpy as np
import pytest
import yaml

from tiny_pairs import Killed, Log, Logs, draw_pairs, narrow_params
from vmnet_pipeline.errors import ParameterError, TuningError
from vmnet_pipeline.experiments import tuning
from vmnet_pipeline.experiments.tuning import search_settings
from vmnet_pipeline.params import TrainParams, TuneParams
from vmnet_pipeline.reporting.tuning import write_settings
from vmnet_pipeline.training import train_model

pytestmark = pytest.mark.long

TRAIN, VAL = draw_pairs(60, 1), draw_pairs(20, 2)
SPACE = {
    "learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
    "loss.top_k": {"choices": [None, 4]},
    "batch_size": {"low": 6, "high": 20},
}


def make_params(n_trials=3, **given):
    return TuneParams(**{"space": SPACE, "fixed": {}, "n_trials": n_trials, "startup_trials": 2, **given})


def search(folder, params=None, train_params=None, train=TRAIN, val=VAL, logs=None):
    params, train_params = params or make_params(), train_params or narrow_params(epochs=3)
    return search_settings(train, val, train_params, params, folder=folder, open_log=logs or Logs())


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("search")
    return folder, search(folder)


def untimed(found):
    return [
        {name: value for name, value in row.items() if name not in ("seconds", "number")} for row in found["trials"]
    ]


def test_trials_are_of_the_space_and_the_best_is_best_on_validation(done):
    _, found = done
    assert [row["number"] for row in found["trials"]] == [0, 1, 2]
    for row in found["trials"]:
        assert 1e-4 <= row["values"]["learning_rate"] <= 1e-2
        assert row["values"]["loss.top_k"] in (None, 4)
        assert isinstance(row["values"]["batch_size"], int)
    assert len({row["values"]["learning_rate"] for row in found["trials"]}) == 3
    complete = [row["value"] for row in found["trials"] if row["state"] == "complete"]
    assert found["best"]["value"] == max(complete)


def test_the_best_settings_train_the_same_network(done, tmp_path):
    _, found = done
    text = write_settings(found)
    params = TrainParams(**yaml.safe_load(text)["train"])
    result = train_model(TRAIN, VAL, params, state_dir=tmp_path)
    assert result.metrics["mrr"] == found["best"]["value"]
    assert params.batch_size == found["best"]["values"]["batch_size"]
    assert f"train.batch_size={params.batch_size}" in text.splitlines()[1]


def test_a_rerun_does_only_the_trials_that_are_missing(done):
    folder, found = done
    logs = Logs()
    assert search(folder, logs=logs) == found
    assert not logs.by_name
    more = search(folder, make_params(4), logs=logs)
    assert list(logs.by_name) == ["trial 3"]
    assert more["trials"][:3] == found["trials"]


@pytest.mark.parametrize(("trial", "epoch"), [(1, 2), (2, 3)])
def test_killed_in_any_trial_it_goes_on_and_finds_the_same(tmp_path, trial, epoch):
    params = make_params(prune_after_epochs=None)
    whole = search(tmp_path / "whole", params)
    with pytest.raises(Killed):
        search(tmp_path / "cut", params, logs=Logs(f"trial {trial}", epoch))
    logs = Logs()
    resumed = search(tmp_path / "cut", params, logs=logs)
    assert untimed(resumed) == untimed(whole)
    assert resumed["train"] == whole["train"]
    first = logs.by_name[f"trial {trial + 1}"]  # the one that was killed, taken up under a new number
    assert len(first.epochs) == 3 - min(epoch, 2)
    assert [record.epoch for record in first.history] == [1, 2, 3]


def test_a_trial_killed_twice_is_still_one(tmp_path):
    params = make_params(2, prune_after_epochs=None)
    for number in (0, 1):
        with pytest.raises(Killed):
            search(tmp_path, params, logs=Logs(f"trial {number}", 1))
    logs = Logs()
    other_seed = params.model_copy(update={"seed": 99})  # what was begun is not drawn again
    assert len(search(tmp_path, other_seed, logs=logs)["trials"]) == 2
    assert logs.by_name["trial 2"].epochs == [3]


def test_a_trial_that_goes_on_is_pruned_by_what_it_had_reached_before(tmp_path):
    import optuna

    params = make_params(1, prune_after_epochs=None)
    with pytest.raises(Killed):
        search(tmp_path, params, logs=Logs("trial 0", 2))
    search(tmp_path, params)
    (study,) = optuna.get_all_study_names(f"sqlite:///{tmp_path / 'study.db'}")
    trials = optuna.load_study(study_name=study, storage=f"sqlite:///{tmp_path / 'study.db'}").trials
    assert sorted(trials[-1].intermediate_values) == [1, 2, 3]
    assert sorted(trials[0].intermediate_values) == [1, 2]


def test_hopeless_trials_are_pruned_and_kept_as_rows(tmp_path):
    space = {"learning_rate": {"choices": [1e-9, 5e-3]}}
    params = make_params(8, space=space, startup_trials=2, prune_after_epochs=1)
    found = search(tmp_path, params, narrow_params(epochs=6))
    pruned = [row for row in found["trials"] if row["state"] == "pruned"]
    assert pruned
    assert {row["values"]["learning_rate"] for row in pruned} == {1e-9}
    assert all(1 <= row["epochs"] < 6 and 0 < row["value"] < 1 for row in pruned)
    assert found["best"]["values"]["learning_rate"] == 5e-3


def test_states_of_finished_trials_are_removed(done):
    folder, _ = done
    assert sorted(path.name for path in folder.iterdir()) == ["lock", "study.db"]


def test_a_trial_that_fails_is_a_row_and_the_search_goes_on(tmp_path):
    space = {"learning_rate": {"choices": [1e30, 1e-3]}}
    params = make_params(4, space=space, max_failed_share=0.9)
    found = search(tmp_path, params, narrow_params(epochs=2, standardise=False))
    failed = [row for row in found["trials"] if row["state"] == "failed"]
    assert failed
    assert all("TrainingError: the loss is not finite" in row["error"] for row in failed)
    assert found["best"]["values"]["learning_rate"] == 1e-3
    assert len(found["trials"]) == 4


def test_too_many_failures_end_the_search(tmp_path):
    space = {"learning_rate": {"low": 1e30, "high": 1e31}}
    logs = Logs()
    with pytest.raises(TuningError, match=r"2 of 3 trials failed.*not finite"):
        search(tmp_path, make_params(space=space), narrow_params(standardise=False), logs=logs)
    assert len(logs.by_name) == 2


def test_an_error_that_is_not_of_the_trial_ends_the_run_and_the_trial_is_done_again(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(tuning, "train_model", fail)
        with pytest.raises(OSError, match="no space"):
            search(tmp_path)
    assert [row["state"] for row in search(tmp_path, make_params(2))["trials"]] == ["complete", "complete"]


def test_a_trial_whose_curves_cannot_be_logged_did_not_fail(tmp_path, monkeypatch):
    def fail(log, history):
        raise RuntimeError("the server is away")

    with monkeypatch.context() as patch:
        patch.setattr(Log, "finish", fail)
        with pytest.raises(RuntimeError, match="server is away"):
            search(tmp_path, make_params(1))
    logs = Logs()
    found = search(tmp_path, make_params(1), logs=logs)
    assert [row["state"] for row in found["trials"]] == ["complete"]
    assert [log.epochs for log in logs.by_name.values()] == [[]]  # nothing was trained again


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"train": replace(TRAIN, music=TRAIN.music + np.float32(1))}, "other data, and"),
        ({"val": draw_pairs(20, 5)}, "other data, and"),
        ({"train_params": narrow_params(epochs=4)}, "other training settings, and"),
        ({"params": make_params(fixed={"weight_decay": 0.1})}, "other training settings, and"),
        ({"params": make_params(space={"learning_rate": {"low": 1e-4, "high": 1e-3}})}, "other space, and"),
    ],
)
def test_a_study_of_another_search_is_refused(done, given, message):
    folder, _ = done
    with pytest.raises(TuningError, match=message):
        search(folder, **given)


def test_what_changes_no_figure_does_not_matter(done):
    folder, found = done
    again = search(
        folder, make_params(seed=5, max_failed_share=0.2), narrow_params(epochs=3, n_threads=2, state_interval_s=9.0)
    )
    assert again["trials"][:3] == found["trials"]


def test_two_processes_never_work_on_one_study(tmp_path):
    with (tmp_path / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(TuningError, match="Another process is searching"):
            search(tmp_path)


def test_a_damaged_study_is_named(tmp_path):
    (tmp_path / "study.db").write_bytes(b"this is no database at all" * 100)
    with pytest.raises(TuningError, match=r"study\.db cannot be read"):
        search(tmp_path)


@pytest.mark.parametrize(
    ("space", "fixed", "message"),
    [
        ({"learning_rat": {"low": 1e-4, "high": 1e-3}}, {}, r"tune\.space\.learning_rat: "),
        ({"loss.margin": {"low": 0.5, "high": 5.0}}, {}, r"loss\.margin: 5\.0 is not possible"),
        ({"loss.name": {"choices": ["vmnet", "hinge"]}}, {}, r"loss\.name: 'hinge'"),
        ({"n_members": {"choices": [1, 3]}}, {}, "leave n_members out"),
        ({"epochs": {"low": 1, "high": 3}}, {"n_members": 2}, "leave n_members out"),
        ({"epochs": {"low": 1, "high": 3}}, {"epoch": 2}, "epoch"),
    ],
)
def test_a_space_that_cannot_be_is_refused_before_any_trial(tmp_path, space, fixed, message):
    logs = Logs()
    with pytest.raises(ParameterError, match=message):
        search(tmp_path, make_params(space=space, fixed=fixed), logs=logs)
    assert not logs.by_name


def test_members_of_the_settings_are_left_to_the_training_afterwards(tmp_path):
    found = search(tmp_path, make_params(1), narrow_params(n_members=3))
    assert "n_members" not in found["train"]


def test_a_search_needs_validation_pairs(tmp_path):
    with pytest.raises(TuningError, match="at least 2 validation pairs, not 1"):
        search(tmp_path, val=draw_pairs(1, 2))
