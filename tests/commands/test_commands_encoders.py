"""`kedro encoders check` with weights of a user."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from click.testing import CliRunner

from tiny_encoders import save_tiny
from vmnet_pipeline.backends.encoders import check
from vmnet_pipeline.commands.encoders import manage_encoders

pytestmark = pytest.mark.long


def run(tmp_path, *arguments: str):
    return CliRunner().invoke(manage_encoders, ["check", *arguments, "--weights-dir", str(tmp_path)])


@pytest.mark.parametrize(
    ("name", "settings", "n_blocks"),
    [
        ("clap", ["--set", "window_s=2"], 1),
        ("mert", ["--set", "window_s=2", "--engine", "torch"], 1),
        ("siglip2", [], 1),
        ("videomae", ["--set", "n_frames=4"], 1),
    ],
)
def test_a_block_to_paste_says_whether_a_folder_gives_what_the_library_gives(name, settings, n_blocks, tmp_path):
    folder = save_tiny(name, tmp_path / "own")
    result = run(tmp_path, str(folder), *settings)
    assert result.exit_code == 0, result.output
    assert result.output.count("```\n") == 2 * n_blocks
    for text in ("verdict     good", "cosine      1.000000", "own, revision not named, unknown", "transformers 5."):
        assert text in result.output


def test_both_sides_of_a_preset_are_checked(tmp_path, monkeypatch):
    folder = save_tiny("pe-av", tmp_path / "encoders/facebook--pe-av-small" / ("a" * 40))
    result = run(tmp_path, "pe-av", "--revision", "a" * 40, "--engine", "torch")
    assert result.exit_code == 0, result.output
    assert result.output.count("verdict     good") == 2
    assert "pe-av-audio" in result.output
    assert "facebook/pe-av-small" in result.output
    shutil.rmtree(folder)
    result = run(tmp_path, "pe-av", "--revision", "a" * 40)
    assert result.exit_code == 1
    assert "kedro weights fetch facebook/pe-av-small@aaaa" in result.output


def test_what_differs_is_an_error(tmp_path, monkeypatch):
    folder = save_tiny("clip", tmp_path / "own")
    usual = check.call_library
    monkeypatch.setattr(check, "call_library", lambda backend, path: np.roll(usual(backend, path), 1, axis=1))
    result = run(tmp_path, str(folder), "--engine", "torch")
    assert result.exit_code == 1
    assert "DIFFERS from the library" in result.output


def test_judgement():
    rows = np.eye(3, dtype=np.float32)
    assert check.judge(rows, rows, is_same_engine=True)["verdict"] == "good"
    assert "DIFFERS" in check.judge(rows, rows * 1.01, is_same_engine=True)["verdict"]
    assert check.judge(rows, rows * 1.01, is_same_engine=False)["verdict"] == "good"
    assert "(3, 3) here" in check.judge(rows, rows[:2], is_same_engine=True)["verdict"]


def test_a_model_of_texts_is_refused(tmp_path):
    folder = save_tiny("clip", tmp_path / "own")
    (folder / "config.json").write_text('{"model_type": "bert"}')
    result = run(tmp_path, str(folder))
    assert result.exit_code == 1
    assert "embeds neither audio nor frames here" in result.output
    assert "give NAME=VALUE" in run(tmp_path, str(folder), "--set", "window_s").output
