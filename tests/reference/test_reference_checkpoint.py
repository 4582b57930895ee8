"""Checkpoints of the reference, as TensorFlow writes them, give the embeddings that the reference's networks give."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import reference_graph
from reference_graph import FORMS
from vmnet_pipeline.errors import CheckpointError
from vmnet_pipeline.inference.embedder import Embedder
from vmnet_pipeline.models.checkpoints import build_from_checkpoint, load_checkpoint, save_checkpoint
from vmnet_pipeline.models.embed import embed_arrays
from vmnet_pipeline.reference.checkpoint import find_prefix, import_checkpoint, import_start

STEP = 1799
SHAPES = {"vggish": (62, 512), "musicnn": (500,)}
OTHER_FORMS = [name for name in FORMS if name not in SHAPES]
LINEAR_UNKNOWN = "nothing tells whether its towers are linear; ReLU is taken, as the training script has it (linear)"


@pytest.fixture
def written(reference_checkpoints) -> dict[str, Path]:
    """The summaries_dir of each variant."""
    return {variant: reference_checkpoints / variant for variant in SHAPES}


@pytest.fixture(params=SHAPES)
def variant(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def other_forms(tmp_path_factory) -> Path:
    """Checkpoints of towers of other depth, of linear ones, without slots, and of 2017."""
    folder = tmp_path_factory.mktemp("forms")
    reference_graph.write_checkpoints(folder, STEP, *OTHER_FORMS)
    return folder


def check_embeddings(checkpoint, name, folder):
    """The embeddings are those of a plain forward pass, batched and one by one; seeded by the step."""
    save_checkpoint(folder, checkpoint)
    loaded = load_checkpoint(folder)
    model, form = build_from_checkpoint(loaded), FORMS[name]
    rng = np.random.default_rng(3)
    music = rng.random((5, *loaded.model_config["music_shape"]), dtype=np.float32)
    video = rng.random((5, *loaded.model_config["video_shape"]), dtype=np.float32)
    variables = reference_graph.draw_variables(form, seed=STEP)
    expected = reference_graph.embed_music(form, variables, music), reference_graph.embed_video(form, variables, video)
    assert np.abs(expected[0][0] - expected[0][1]).max() > 1e-3
    np.testing.assert_allclose(embed_arrays(model, music=music), expected[0], atol=1e-5)
    np.testing.assert_allclose(embed_arrays(model, video=video), expected[1], atol=1e-5)
    embedder = Embedder(loaded)
    one = embedder([music[:1], video[:1]], pooled=True)
    np.testing.assert_allclose(one.music, expected[0][:1], atol=1e-5)
    np.testing.assert_allclose(one.video, expected[1][:1], atol=1e-5)


@pytest.mark.process
def test_embeddings_are_those_of_a_plain_forward_pass(written, variant, tmp_path):
    checkpoint = import_checkpoint(written[variant])
    assert checkpoint.model_config["music_tower"] == variant
    assert tuple(checkpoint.model_config["music_shape"]) == SHAPES[variant]
    assert checkpoint.params["assumed"] == ([] if variant == "musicnn" else [LINEAR_UNKNOWN])
    check_embeddings(checkpoint, variant, tmp_path)


LISTED = {
    "musicnn": (
        ("X_network/bn1/gamma/Adam", [2048]), ("X_network/bn5/moving_variance", [512]), ("X_network/fc1/b", [2048]),
        ("Y_network/fc2/W", [2048, 1024]), ("Y_network/fc4/b", [512]), ("Y_network/fc5/W/Adam_1", [2048, 512]),
        ("dom_bn2/moving_mean", [512]), ("dom_logit/weights", [512, 1]), ("Variable", []), ("beta2_power", []),
    ),
    "vggish": (
        ("X_network/BN/beta/Adam_1", [512]), ("X_network/time_fusion0/conv2d/kernel/Adam", [5, 1, 1, 1]),
        ("X_network/time_fusion2/batch_normalization/moving_mean", [1]), ("Y_network/BN/gamma", [512]),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("name", "count"), [("musicnn", 85), ("vggish", 89)])
def test_the_checkpoints_here_have_the_names_that_the_original_writes(written, name, count):
    """The original's own lists, of 85 and 89 variables, were compared with these once; here some of each kind are."""
    listed = json.loads((written[name] / "names.json").read_text())
    assert len(listed) == count
    for variable in LISTED[name]:
        assert list(variable) in listed
    names = {name for name, _ in listed}
    assert not names & {"Y_network/fc2/W/Adam", "X_network/fc3/W", "X_network/bn1/BN/gamma"}


@pytest.mark.process
@pytest.mark.parametrize("name", OTHER_FORMS)
def test_depth_and_linearity_are_read_from_the_checkpoint(other_forms, name, tmp_path):
    form = FORMS[name]
    checkpoint = import_checkpoint(other_forms / name / "checkpoints")
    config = checkpoint.model_config
    assert (config.get("music_layers", 3), config.get("video_layers", 2)) == (form.music_layers, form.video_layers)
    assert config.get("linear", False) is form.linear
    assert config["music_tower"] == ("vggish" if form.variant == "vggish" else "musicnn")
    check_embeddings(checkpoint, name, tmp_path)


def test_what_nothing_tells_is_assumed_aloud_or_asked_for(written, other_forms, monkeypatch, caplog):
    checkpoint = import_checkpoint(other_forms / "nested_musicnn")  # 2,048 values may come from fc1 or be the feature
    assert len(checkpoint.params["assumed"]) == 2
    assert "number of layers of Y_network; the published 2 is taken" in caplog.text
    assert "ReLU is taken" in caplog.text
    told = import_checkpoint(other_forms / "nested_musicnn", video_layers=2, linear=False)
    assert told.params["assumed"] == []
    linear = import_checkpoint(other_forms / "nested_musicnn", video_layers=1, linear=True)
    assert (linear.model_config["video_layers"], linear.model_config["linear"]) == (1, True)

    def drop_slots(variables):
        for name in [name for name in variables if "/Adam" in name]:
            del variables[name]

    rewrite(monkeypatch, drop_slots)
    with pytest.raises(CheckpointError, match=r"Y_network has 3 or 4 layers; give video_layers, the num_layer_y"):
        import_checkpoint(other_forms / "deep_musicnn")
    assert import_checkpoint(other_forms / "deep_musicnn", video_layers=4).model_config["video_layers"] == 4
    (other_forms / "plain/checkpoints/model.ckpt-1799.meta").rename(other_forms / "plain/checkpoints/x")
    with pytest.raises(CheckpointError, match=r"whether its towers are linear.*give linear"):
        import_checkpoint(other_forms / "plain")
    assert import_checkpoint(other_forms / "plain", linear=True).model_config["linear"] is True
    (other_forms / "plain/checkpoints/x").rename(other_forms / "plain/checkpoints/model.ckpt-1799.meta")


@pytest.mark.parametrize(
    ("name", "told", "message"),
    [
        ("deep_musicnn", {"video_layers": 3}, r"slots say 4; video_layers says 3"),
        ("linear_musicnn", {"linear": False}, r"slots says linear, linear says with ReLU"),
        ("linear_vggish", {"linear": False}, r"graph says linear, linear says with ReLU"),
        ("deep_musicnn", {"music_layers": 2}, r"fc5/W takes 512 values, which fits \[5\]"),
    ],
)
def test_what_is_told_against_the_checkpoint_is_refused(other_forms, name, told, message):
    with pytest.raises(CheckpointError, match=message):
        import_checkpoint(other_forms / name, **told)


@pytest.mark.parametrize(
    "form",
    ["checkpoints", "checkpoints/checkpoint", "checkpoints/model.ckpt-1799", "checkpoints/model.ckpt-1799.index"],
)
def test_every_form_of_path_is_taken(written, form):
    assert find_prefix(written["musicnn"] / form).name == "model.ckpt-1799"


def test_the_latest_of_a_folder_that_was_moved_is_found_by_name(written, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(written["musicnn"], moved)
    (moved / "checkpoints" / "checkpoint").write_text('model_checkpoint_path: "/home/me/checkpoints/model.ckpt-1799"\n')
    assert find_prefix(moved) == moved / "checkpoints" / "model.ckpt-1799"


def rewrite(monkeypatch, change):
    import vmnet_pipeline.reference.checkpoint as module

    read = module.read_checkpoint

    def read_changed(*paths, **given):
        variables = dict(read(*paths, **given))
        change(variables)
        return variables

    monkeypatch.setattr(module, "read_checkpoint", read_changed)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda v: v.pop("Y_network/bn5/moving_mean"),
            r"lacks Y_network/bn5/moving_mean\.\nFound: X_network/bn1/beta, ",
        ),
        (lambda v: v.update({"X_network/fc9/W": np.zeros((2, 2), np.float32)}), r"has X_network/fc9/W\."),
        (
            lambda v: v.update({"X_network/bn5/renorm_mean": np.zeros(512, np.float32)}),
            r"has X_network/bn5/renorm_mean\.\nFound: .*X_network/bn5/renorm_mean.*\nExpected: X_network/bn1/beta, ",
        ),
        (lambda v: [v.update({n.replace("/W", "/kernel"): v.pop(n)}) for n in list(v)], r"lacks .*has .*kernel"),
        (lambda v: v.update({"X_network/fc1/b": np.full(2048, np.nan, np.float32)}), r"X_network/fc1/b holds NaN"),
        (lambda v: v.update({"X_network/fc1/b": np.zeros((1, 2048), np.float32)}), r"X_network/fc1/b is float32"),
        (lambda v: v.update({"X_network/fc1/b": np.zeros(99, np.float32)}), r"not of the sizes"),
        (
            lambda v: v.update({"X_network/fc2/W": np.zeros((2048, 99), np.float32)}),
            r"takes 1024 values, which fits none",
        ),
    ],
    ids=["missing", "unknown layer", "unknown part", "other names", "nan", "rank", "size", "width"],
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
    "form", ["", "no/such/model.ckpt-1", "checkpoint names nothing", "latest is gone", "data is gone", "of format V1"]
)
def test_what_is_not_there_is_said(written, tmp_path, form):
    path = tmp_path / form if form.startswith("no") else tmp_path
    if form == "checkpoint names nothing":
        (tmp_path / "checkpoint").write_text("hello")
    if form == "latest is gone":
        (tmp_path / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-9"')
    if form == "data is gone":
        (tmp_path / "model.ckpt-1799.index").write_bytes(b"x")
        path = tmp_path / "model.ckpt-1799"
    if form == "of format V1":
        path = tmp_path / "model.ckpt-7"
        path.write_bytes(b"x")
        (tmp_path / "model.ckpt-7.meta").write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"give|missing|not beside|save it again in V2") as caught:
        import_checkpoint(path)
    assert ("V2" in str(caught.value)) is (form == "of format V1")


def test_damaged_files_are_a_checkpoint_error(written, tmp_path):
    shutil.copytree(written["musicnn"] / "checkpoints", tmp_path / "c")
    (tmp_path / "c" / "model.ckpt-1799.data-00000-of-00001").write_bytes(b"\0" * 1000)
    with pytest.raises(CheckpointError, match="not a readable TensorFlow checkpoint"):
        import_checkpoint(tmp_path / "c" / "model.ckpt-1799")


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


@pytest.mark.process
def test_importing_needs_no_tensorflow(written):
    code = (
        "import sys; from vmnet_pipeline.reference.checkpoint import import_checkpoint;"
        f"import_checkpoint({str(written['musicnn'])!r}); print('tensorflow' in sys.modules)"
    )
    source = Path(__file__).parents[2] / "src"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=source)
    assert done.stdout.strip() == "False"


# --- training on from one


def test_moments_and_steps_come_along(written, variant):
    start = import_start(written[variant])
    assert start.steps == STEP + 1
    form, slots = FORMS[variant], reference_graph.draw_slots(FORMS[variant], STEP)
    assert len(start.moments) == len(reference_graph.list_trained(form))
    assert start.moments.keys() <= start.checkpoint.tensors.keys()
    first, second = start.moments["video.fc.weight"]
    np.testing.assert_array_equal(first.numpy(), slots["Y_network/fc5/W/Adam"].T)
    np.testing.assert_array_equal(second.numpy(), slots["Y_network/fc5/W/Adam_1"].T)
    for name, (moment, _) in start.moments.items():
        assert moment.shape == start.checkpoint.tensors[name].shape, name


def test_steps_are_read_from_the_power_of_beta_where_they_are_not_counted(written, monkeypatch):
    rewrite(monkeypatch, lambda variables: variables.update({"Variable": np.array(0, np.int32)}))
    assert import_start(written["musicnn"]).steps == STEP + 1


def test_without_slots_there_are_no_moments(other_forms):
    start = import_start(other_forms / "nested_musicnn")
    assert (start.moments, start.steps) == ({}, 0)
