"""Searches as text, table and YAML."""

import pandas as pd
import yaml

from vmnet_pipeline.reporting.tuning import format_tuning, tabulate_trials, write_settings

TUNING = {
    "n_trials": 3,
    "train": {"learning_rate": 0.5, "loss": {"margin": 0.1, "top_k": None}, "seed": 3},
    "trials": [
        {"number": 0, "state": "complete", "value": 0.2, "epochs": 4, "best_epoch": 2, "seconds": 1.0,
         "values": {"learning_rate": 0.25}, "error": None},
        {"number": 2, "state": "complete", "value": 0.3, "epochs": 4, "best_epoch": 2, "seconds": 1.0,
         "values": {"learning_rate": 0.5}, "error": None},
        {"number": 3, "state": "failed", "value": None, "epochs": 0, "best_epoch": None, "seconds": 1.0,
         "values": {"learning_rate": 9.0}, "error": "TrainingError: the loss is not finite" + "x" * 99},
    ],
}  # fmt: skip

TUNING["best"] = TUNING["trials"][1]


def test_a_search_lists_the_best_trials_first_and_the_failed_ones():
    lines = format_tuning(TUNING).splitlines()
    assert lines[0] == "Search: 2 complete, 0 pruned, 1 failed"
    assert [line.split()[0] for line in lines[4:]] == ["2", "0", "3"]
    assert "learning_rate=0.5" in lines[4]
    assert "failed: TrainingError" in lines[6]
    assert max(len(line) for line in lines) <= 100


def test_the_best_settings_are_a_parameter_file_and_an_argument():
    text = write_settings(TUNING)
    assert yaml.safe_load(text) == {"train": TUNING["train"]}
    assert "--params train.learning_rate=0.5,train.loss.margin=0.1,train.loss.top_k=null,train.seed=3" in text


def test_trials_are_a_table_with_a_column_per_setting():
    table = tabulate_trials(TUNING)
    assert table["learning_rate"].tolist() == [0.25, 0.5, 9.0]
    assert table["state"].tolist() == ["complete", "complete", "failed"]
    assert pd.isna(table["value"][2])
