"""What the hooks do before a run: which pipelines it has, and what is refused at once."""

import errno
from pathlib import Path
from types import SimpleNamespace

import pytest
from kedro.framework.project import configure_project, pipelines
from kedro.io import DataCatalog, MemoryDataset
from kedro.io.data_catalog import SharedMemoryDataCatalog
from kedro.validation.exceptions import ParameterValidationError

from reference_data import make_reference_data
from vmnet_pipeline.errors import CheckpointError, ParameterError, StorageError
from vmnet_pipeline.features.store import FeatureChunk, FeatureStore
from vmnet_pipeline.hooks import project as hooks
from vmnet_pipeline.hooks.project import ProjectHooks
from vmnet_pipeline.models.checkpoints import Checkpoint
from vmnet_pipeline.pipeline_registry import register_pipelines, register_reference_pipelines
from vmnet_pipeline.reference.layout import locate_sides, make_layout
from vmnet_pipeline.types import Fingerprint

ROOT = Path(__file__).parents[2]
PLAIN = {"music_tower": "musicnn", "video_tower": "musicnn", "embedding_dim": 8, "dropout": 0.1, "standardise": False}


def make_checkpoint(music=24, video=30, **fingerprints):
    return Checkpoint({**PLAIN, "music_shape": [music], "video_shape": [video]}, {}, fingerprints)


def make_context(**places):
    return SimpleNamespace(config_loader={"parameters": {"reference": places}})


@pytest.fixture
def project_pipelines():
    configure_project("vmnet_pipeline")
    yield pipelines
    configure_project("vmnet_pipeline")


def test_files_of_ones_own_change_train_and_evaluate_for_that_run_alone(tmp_path, project_pipelines):
    data = make_reference_data(tmp_path, kind="pooled_vggish", n_train=2, n_test=2)
    own = ProjectHooks()
    usual = set(project_pipelines["train"].inputs())
    own.after_context_created(make_context(pairs_dir=str(data)))
    assert "vmnet_vggish.reference_files" in project_pipelines["train"].inputs()
    assert "vmnet_vggish.reference_files" in project_pipelines["evaluate"].inputs()
    assert "manifest" not in (project_pipelines["train"] + project_pipelines["evaluate"]).inputs()
    own.after_context_created(make_context())
    assert set(project_pipelines["train"].inputs()) == usual


def test_a_misspelt_variant_is_a_parameter_error(tmp_path):
    with pytest.raises(ParameterError, match=r"reference\.variant.*vmnet_x"):
        hooks._choose_variant({"reference": {"pairs_dir": str(tmp_path), "variant": "vmnet_x"}})


@pytest.fixture
def loader():
    def make(**given):
        return SimpleNamespace(conf_source=str(ROOT / "conf"), runtime_params=given)

    return make


@pytest.mark.parametrize(
    ("name", "hint"), [("media_dri", "media_dir"), ("trian", "train"), ("nothing_like_it", r"docs/parameters\.md")]
)
def test_a_name_that_nothing_reads_is_refused(loader, name, hint):
    with pytest.raises(ParameterError, match=f"{name}: there is no parameter of this name; .*{hint}"):
        hooks._check_names(loader(seed=3, **{name: "x"}))


def test_names_that_something_reads_are_taken(loader):
    hooks._check_names(loader())
    hooks._check_names(
        loader(media_dir="x", seed=3, train={"epochs": 3}, musicnn={"layer": "taggram"}, summaries_dir="y")
    )


def test_what_kedro_refuses_is_said_without_a_traceback(capsys):
    epochs = "- Parameter 'train': epochs\n  Input should be an integer"
    for error, expected in [
        (
            ParameterValidationError(f"{epochs}\n    For further information visit https://errors.pydantic.dev/2/v/x"),
            f"ParameterError: {epochs}\n(",
        ),
        (
            ValueError("Failed to find the pipeline named 'trian'. Did you mean one of these instead?\n    train"),
            "There is no pipeline trian. Did you mean train? `kedro registry list` names all.",
        ),
    ]:
        hooks._print_error(type(error), error, None)
        assert expected in capsys.readouterr().err
    hooks._print_error(ValueError, ValueError("another"), None)
    assert "ValueError: another" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        (None, {"backend": "musicnn", "weights": "random", "gpu_idx": None}),
        ({"gpu_idx": 1}, {"backend": "musicnn", "weights": "random", "gpu_idx": 1}),
        ({"backend": "musicnn", "gpu_idx": 1}, {"backend": "musicnn", "gpu_idx": 1}),
    ],
)
def test_a_backend_has_the_common_parameters_below_its_own(own, expected):
    catalog = DataCatalog({"params:backend_defaults": MemoryDataset({"weights": "random", "gpu_idx": None})})
    if own is not None:
        catalog["params:musicnn"] = MemoryDataset(own)
    ProjectHooks().after_catalog_created(catalog)
    assert catalog.load("params:musicnn") == expected


def test_steps_are_not_divided_among_processes():
    with pytest.raises(ParameterError, match=r"--runner=ParallelRunner cannot be used: .* docs/scaling\.md"):
        ProjectHooks().after_catalog_created(SharedMemoryDataCatalog())


def check(pipeline, datasets, model=None, **given):
    names = [name for name in pipeline.datasets() if name not in datasets]
    params = {"params:train": MemoryDataset({"model": model or {}})}
    catalog = DataCatalog({**{name: MemoryDataset() for name in names}, **datasets, **params})
    hooks._check_checkpoint({"runtime_params": given}, pipeline, catalog)


@pytest.mark.parametrize(
    ("checkpoint", "message"),
    [
        (make_checkpoint(), None),
        (make_checkpoint(music=25), r"takes music features of shape \(25,\)"),
        (make_checkpoint(video=31), r"takes video features of shape \(31,\)"),
    ],
)
def test_a_checkpoint_for_other_files_is_refused_before_they_are_read(tmp_path, checkpoint, message):
    layout = make_layout(locate_sides(make_reference_data(tmp_path, n_train=2, n_test=2)))
    datasets = {
        "vmnet_musicnn.reference_files": MemoryDataset(layout),
        "vmnet_musicnn.checkpoint": MemoryDataset(checkpoint, copy_mode="assign"),
    }
    pipeline = register_reference_pipelines("vmnet_musicnn")["evaluate"]
    if message is None:
        check(pipeline, datasets, checkpoint="x")
        return
    with pytest.raises(CheckpointError, match=message):
        check(pipeline, datasets, checkpoint="x")


@pytest.mark.parametrize(
    ("fingerprint", "message"),
    [
        (Fingerprint("musicnn", {"weights": "a"}), None),
        (Fingerprint("musicnn", {"weights": "b"}), "weights 'b', not 'a'"),
        (Fingerprint("vggish"), r"backend '?vggish'?, not '?musicnn"),
    ],
)
def test_a_checkpoint_for_another_backend_is_refused_before_anything_is_packed(tmp_path, fingerprint, message):
    FeatureStore(tmp_path / "m").write(FeatureChunk(Fingerprint("musicnn", {"weights": "a"}), ()))
    datasets = {
        "musicnn.features": MemoryDataset(FeatureStore(tmp_path / "m"), copy_mode="assign"),
        "efficientnet.features": MemoryDataset(FeatureStore(tmp_path / "v"), copy_mode="assign"),
        "vmnet_musicnn.checkpoint": MemoryDataset(make_checkpoint(audio=fingerprint), copy_mode="assign"),
    }
    pipeline = register_pipelines()["evaluate"]
    if message is None:
        check(pipeline, datasets)
        return
    with pytest.raises(CheckpointError, match=message):
        check(pipeline, datasets)


def test_a_run_that_ingests_says_where_the_manifest_is(capsys, tmp_path):
    manifest = SimpleNamespace(_filepath=str(tmp_path / "manifest.parquet"))
    hooks._print_results(register_pipelines()["ingest"], {"manifest": manifest})
    assert capsys.readouterr().out == f"Manifest    {tmp_path / 'manifest.parquet'}\n"


def test_a_given_checkpoint_is_never_trained_over():
    with pytest.raises(ParameterError, match="would be overwritten"):
        check(register_pipelines()["__default__"], {}, checkpoint="x")
    check(register_pipelines()["train"], {})


@pytest.mark.parametrize(
    ("config", "model", "message"),
    [
        ({"music_tower": "sequence", "music_shape": [9, 24]}, {"music_tower": "sequence", "max_steps": 9}, None),
        (
            {"music_tower": "sequence", "music_shape": [9, 24]},
            {},
            "pass --params train.model.music_tower=sequence,train.m",
        ),
        (
            {"music_tower": "sequence", "music_shape": [9, 24]},
            {"music_tower": "sequence"},
            "at most 9 steps, but .* 128",
        ),
        ({}, {"video_tower": "sequence"}, "'musicnn' takes pooled features, .* train.model.video_tower=musicnn"),
        (
            {"music_tower": "sequence", "music_shape": [9, 25]},
            {"music_tower": "sequence", "max_steps": 9},
            r"\(9, 25\)",
        ),
    ],
)
def test_a_checkpoint_of_another_form_says_which_parameters_give_it(tmp_path, config, model, message):
    layout = make_layout(locate_sides(make_reference_data(tmp_path, n_train=2, n_test=2)))
    plain = make_checkpoint()
    datasets = {
        "vmnet_musicnn.reference_files": MemoryDataset(layout),
        "vmnet_musicnn.checkpoint": MemoryDataset(Checkpoint({**plain.model_config, **config}, {}), copy_mode="assign"),
    }
    pipeline = register_reference_pipelines("vmnet_musicnn")["evaluate"]
    model = {"video_tower": "musicnn", **model}
    if message is None:
        check(pipeline, datasets, model)
        return
    with pytest.raises(CheckpointError, match=message):
        check(pipeline, datasets, model)


def test_a_full_disk_is_an_error_of_the_project_wherever_it_is_met():
    try:
        raise RuntimeError("Failed while saving to a.json") from OSError(errno.ENOSPC, "No space left on device")
    except RuntimeError as error:
        own = hooks.find_own_error(error)
    assert isinstance(own, StorageError)
    assert "a.json" in str(own)
    assert "Free some space" in str(own)
    assert hooks.find_own_error(ValueError("something else")) is None
