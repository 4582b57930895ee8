"""Checkpoints of the reference, as TensorFlow writes them, give the embeddings that the reference's networks give."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import reference_graph
from vmnet_pipeline.errors import CheckpointError
from vmnet_pipeline.models.checkpoints import build_from_checkpoint, load_checkpoint, save_checkpoint
from vmnet_pipeline.models.embed import embed_arrays
from vmnet_pipeline.reference.checkpoint import find_prefix, import_checkpoint

SHAPES = {"vggish": (62, 512), "musicnn": (500,)}


@pytest.fixture
def written(reference_checkpoints) -> dict[str, Path]:
    """The summaries_dir of each variant."""
    return {variant: reference_checkpoints / variant for variant in SHAPES}


@pytest.fixture(params=SHAPES)
def variant(request) -> str:
    return request.param


def test_embeddings_are_those_of_a_plain_forward_pass(written, variant, tmp_path):
    checkpoint = import_checkpoint(written[variant])
    assert checkpoint.model_config["music_tower"] == variant
    assert tuple(checkpoint.model_config["music_shape"]) == SHAPES[variant]
    save_checkpoint(tmp_path, checkpoint)
    model = build_from_checkpoint(load_checkpoint(tmp_path))
    rng = np.random.default_rng(3)
    music = rng.random((5, *SHAPES[variant]), dtype=np.float32)
    video = rng.random((5, 2048), dtype=np.float32)
    variables = reference_graph.draw_variables(variant, seed=7)
    expected = reference_graph.embed_music(variables, music)
    assert np.abs(expected[0] - expected[1]).max() > 1e-3
    np.testing.assert_allclose(embed_arrays(model, music=music), expected, atol=1e-5)
    np.testing.assert_allclose(
        embed_arrays(model, video=video), reference_graph.embed_video(variables, video), atol=1e-5
    )


@pytest.mark.parametrize("form", ["checkpoints", "checkpoints/model.ckpt-7", "checkpoints/model.ckpt-7.index"])
def test_every_form_of_path_is_taken(written, form):
    assert find_prefix(written["musicnn"] / form).name == "model.ckpt-7"


def test_the_latest_of_a_folder_that_was_moved_is_found_by_name(written, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(written["musicnn"], moved)
    (moved / "checkpoints" / "checkpoint").write_text('model_checkpoint_path: "/home/me/checkpoints/model.ckpt-7"\n')
    assert find_prefix(moved) == moved / "checkpoints" / "model.ckpt-7"


def rewrite(monkeypatch, change):
    import vmnet_pipeline.reference.checkpoint as module

    read = module.read_checkpoint

    def read_changed(*paths):
        variables = dict(read(*paths))
        change(variables)
        return variables

    monkeypatch.setattr(module, "read_checkpoint", read_changed)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.pop("Y_network/bn5/BN/moving_mean"), r"lacks Y_network/bn5/BN/moving_mean"),
        (lambda v: v.update({"X_network/fc9/W": np.zeros((2, 2), np.float32)}), r"has X_network/fc9/W"),
        (lambda v: v.update({"X_network/fc1/b": np.full(2048, np.nan, np.float32)}), r"X_network/fc1/b holds NaN"),
        (lambda v: v.update({"X_network/fc1/b": np.zeros((1, 2048), np.float32)}), r"X_network/fc1/b is float32"),
        (lambda v: v.update({"X_network/fc2/W": np.zeros((2048, 99), np.float32)}), r"not of the sizes"),
    ],
    ids=["missing", "unknown", "nan", "rank", "size"],
)
def test_missing_and_odd_variables_are_named(written, monkeypatch, change, message):
    rewrite(monkeypatch, change)
    with pytest.raises(CheckpointError, match=message):
        import_checkpoint(written["musicnn"])


def test_another_network_is_refused(written, monkeypatch):
    def change(variables):
        variables.clear()
        variables["dense/kernel"] = np.zeros((2, 2), np.float32)

    rewrite(monkeypatch, change)
    with pytest.raises(CheckpointError, match=r"no X_network or Y_network, but dense/kernel"):
        import_checkpoint(written["musicnn"])


@pytest.mark.parametrize(
    "form", ["", "no/such/model.ckpt-1", "checkpoint names nothing", "latest is gone", "data is gone"]
)
def test_what_is_not_there_is_said(written, tmp_path, form):
    path = tmp_path / form if form.startswith("no") else tmp_path
    if form == "checkpoint names nothing":
        (tmp_path / "checkpoint").write_text("hello")
    if form == "latest is gone":
        (tmp_path / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-9"')
    if form == "data is gone":
        (tmp_path / "model.ckpt-7.index").write_bytes(b"x")
        path = tmp_path / "model.ckpt-7"
    with pytest.raises(CheckpointError, match=r"give|missing|not beside"):
        import_checkpoint(path)


def test_damaged_files_are_a_checkpoint_error(written, tmp_path):
    shutil.copytree(written["musicnn"] / "checkpoints", tmp_path / "c")
    (tmp_path / "c" / "model.ckpt-7.data-00000-of-00001").write_bytes(b"\0" * 1000)
    with pytest.raises(CheckpointError, match="not a readable TensorFlow checkpoint"):
        import_checkpoint(tmp_path / "c" / "model.ckpt-7")


def test_the_command_says_where_it_is_and_how_to_test_it(written, variant, tmp_path):
    from click.testing import CliRunner

    from vmnet_pipeline.cli import cli

    output = tmp_path / "imported"
    done = CliRunner().invoke(cli, ["import-checkpoint", str(written[variant]), "--output", str(output)])
    assert done.exit_code == 0, done.output
    assert f"vmnet_{variant}" in done.output
    assert f"checkpoint={output}" in done.output
    assert load_checkpoint(output).model_config["music_tower"] == variant
    (output / "training_history.json").write_text("[]")
    again = CliRunner().invoke(cli, ["import-checkpoint", str(written[variant]), "--output", str(output)])
    assert again.exit_code == 1
    assert "--output" in again.output


def test_importing_needs_no_tensorflow(written):
    code = (
        "import sys; from vmnet_pipeline.reference.checkpoint import import_checkpoint;"
        f"import_checkpoint({str(written['musicnn'])!r}); print('tensorflow' in sys.modules)"
    )
    source = Path(__file__).parents[2] / "src"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=source)
    assert done.stdout.strip() == "False"
