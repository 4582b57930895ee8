"""What is refused before a run begins."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from kedro.io import DataCatalog, MemoryDataset

from reference_data import make_reference_data
from vmnet_pipeline.errors import CheckpointError, ParameterError
from vmnet_pipeline.features.store import FeatureChunk, FeatureStore
from vmnet_pipeline.hooks import run_checks
from vmnet_pipeline.models.checkpoints import Checkpoint
from vmnet_pipeline.params import VARIANTS
from vmnet_pipeline.pipeline_registry import register_pipelines, register_reference_pipelines
from vmnet_pipeline.reference.layout import locate_subsets, make_layout
from vmnet_pipeline.types import Fingerprint

ROOT = Path(__file__).parents[2]


PLAIN = {"music_tower": "musicnn", "video_tower": "musicnn", "embedding_dim": 8, "dropout": 0.1, "standardise": False}


def make_checkpoint(music=24, video=30, **fingerprints):
    return Checkpoint({**PLAIN, "music_shape": [music], "video_shape": [video]}, {}, fingerprints)


def test_a_misspelt_variant_is_a_parameter_error(tmp_path):
    with pytest.raises(ParameterError, match=r"reference\.variant.*vmnet_x"):
        run_checks.choose_reference_variant({"reference": {"pairs_dir": str(tmp_path), "variant": "vmnet_x"}})


@pytest.fixture
def loader():
    def make(**given):
        return SimpleNamespace(conf_source=str(ROOT / "conf"), runtime_params=given)

    return make


@pytest.mark.parametrize(
    ("name", "hint"), [("media_dri", "media_dir"), ("trian", "train"), ("nothing_like_it", r"docs/parameters\.md")]
)
def test_a_name_that_nothing_reads_is_refused(loader, name, hint):
    with pytest.raises(ParameterError, match=f"{name}: unknown parameter; .*{hint}"):
        run_checks.check_names(loader(seed=3, **{name: "x"}))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"epochs": 3}, r"--params epochs: unknown parameter; did you mean train\.epochs\?"),
        ({"train": {"epoch": 3}}, r"--params train\.epoch: unknown parameter; did you mean train\.epochs\?"),
        ({"train": {"loss": {"nam": 3}}}, r"train\.loss\.nam: .*did you mean train\.loss\.name\?"),
        ({"evaluate": {"k": [1]}}, r"did you mean evaluate\.ks\?"),
        ({"musicnn": {"layr": "x"}}, r"did you mean musicnn\.layer\?"),
        ({"train": {"lr": 1}}, r"train\.lr: unknown parameter; docs/parameters\.md lists all"),
    ],
)
def test_a_name_within_a_group_that_nothing_reads_is_refused(loader, given, message):
    with pytest.raises(ParameterError, match=message):
        run_checks.check_names(loader(**given))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"evaluate": {"n_resamples": 0}}, r"^evaluate\.n_resamples: Input should be greater than .* 1, not 0$"),
        ({"train": {"epoch": 3}}, r"^train\.epoch: unknown parameter; did you mean train\.epochs\?$"),
        ({"train": {"loss": {"name": "x"}}}, r"^train\.loss\.name: Input should be 'vmnet' or 'contrastive', not 'x'$"),
        ({"split": {"train_share": 0.9}}, r"^split\..*must be 1, not 1\.3"),
    ],
)
def test_values_are_checked_in_one_sentence(parameters, message):
    with pytest.raises(ParameterError, match=message):
        run_checks.check_values(parameters)
    run_checks.check_values({"train": {}, "split": None, "mine": {"x": 1}})


def test_names_that_something_reads_are_taken(loader):
    run_checks.check_names(
        loader(
            train={"part_weights": {"a": 1}, "loss": {"top_k": None}},
            tune={"space": {"model.dropout": {"low": 0}}},
            compare={"variants": {"mine": {"loss": {"name": "x"}}}},
            descriptors_audio={"weights_dir": "x", "gpu_idx": 1, "backend": "descriptors_audio"},
        )
    )
    run_checks.check_names(loader())
    run_checks.check_names(
        loader(media_dir="x", seed=3, train={"epochs": 3}, musicnn={"layer": "taggram"}, summaries_dir="y")
    )


def check(pipeline, datasets, model=None, **given):
    names = [name for name in pipeline.datasets() if name not in datasets]
    params = {"params:train": MemoryDataset({"model": model or {}})}
    catalog = DataCatalog({**{name: MemoryDataset() for name in names}, **datasets, **params})
    run_checks.check_checkpoint({"runtime_params": given}, pipeline, catalog)


@pytest.mark.parametrize(
    ("checkpoint", "message"),
    [
        (make_checkpoint(), None),
        (make_checkpoint(music=25), r"takes music features of shape \(25,\)"),
        (make_checkpoint(video=31), r"takes video features of shape \(31,\)"),
    ],
)
def test_a_checkpoint_for_other_files_is_refused_before_they_are_read(tmp_path, checkpoint, message):
    layout = make_layout(locate_subsets(make_reference_data(tmp_path, n_train=2, n_test=2)))
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
    pipeline = register_pipelines({"vmnet_musicnn": VARIANTS["vmnet_musicnn"]})["evaluate"]
    if message is None:
        check(pipeline, datasets)
        return
    with pytest.raises(CheckpointError, match=message):
        check(pipeline, datasets)


def test_a_given_checkpoint_is_never_trained_over():
    with pytest.raises(ParameterError, match="would overwrite it"):
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
    layout = make_layout(locate_subsets(make_reference_data(tmp_path, n_train=2, n_test=2)))
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
