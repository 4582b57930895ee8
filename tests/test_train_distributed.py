"""How the leading process of a shared training ends: the others are dismissed whenever it did what was asked."""

import sys

import pytest

from vmnet_pipeline import train_distributed
from vmnet_pipeline.hooks.tracking import NOT_TRACKED
from vmnet_pipeline.training import distributed


@pytest.fixture
def told(monkeypatch):
    told = []
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setattr(sys, "argv", ["train_distributed", "--pipeline", "train"])
    for name in ("join_group", "leave_group"):
        monkeypatch.setattr(distributed, name, lambda name=name: told.append(name))
    monkeypatch.setattr(distributed, "rank", lambda: 0)
    monkeypatch.setattr(distributed, "stop_followers", lambda: told.append("dismiss"))
    return told


@pytest.mark.parametrize(("code", "own"), [(0, 0), (None, 0), (NOT_TRACKED, NOT_TRACKED)])
def test_a_run_that_did_what_was_asked_lets_the_others_go(told, monkeypatch, code, own):
    monkeypatch.setattr("kedro.framework.cli.cli.main", lambda: sys.exit(code))
    with pytest.raises(SystemExit) as end:
        train_distributed.main()
    assert end.value.code == own
    assert told == ["join_group", "dismiss", "leave_group"]


@pytest.mark.parametrize("code", [1, 2])
def test_a_run_that_failed_leaves_them_to_torchrun(told, monkeypatch, code):
    monkeypatch.setattr("kedro.framework.cli.cli.main", lambda: sys.exit(code))
    with pytest.raises(SystemExit) as end:
        train_distributed.main()
    assert end.value.code == code
    assert told == ["join_group"]
