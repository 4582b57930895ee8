"""Hooks that prepare a run."""

from types import SimpleNamespace

import pytest
from kedro.framework.project import configure_project, pipelines
from kedro.io import DataCatalog, MemoryDataset
from kedro.io.data_catalog import SharedMemoryDataCatalog

from reference_data import make_reference_data
from vmnet_pipeline.backends.registry import list_backends
from vmnet_pipeline.errors import ParameterError
from vmnet_pipeline.hooks.project import ProjectHooks


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


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        (None, {"backend": "musicnn", "weights": "random", "gpu_idx": None}),
        ({"gpu_idx": 1}, {"backend": "musicnn", "weights": "random", "gpu_idx": 1}),
        ({"backend": "musicnn", "gpu_idx": 1}, {"backend": "musicnn", "weights": "random", "gpu_idx": 1}),
        ({"backend": "musicnn", "weights_dir": "w"}, {"backend": "musicnn", "weights_dir": "w"}),
    ],
)
def test_a_backend_has_the_common_parameters_below_its_own(own, expected):
    catalog = DataCatalog({"params:backend_defaults": MemoryDataset({"weights": "random", "gpu_idx": None})})
    if own is not None:
        catalog["params:musicnn"] = MemoryDataset(own)
    ProjectHooks().after_catalog_created(catalog)
    assert catalog.load("params:musicnn") == expected


def test_a_backend_of_the_parameters_has_them_too_and_is_for_that_run_alone(project_pipelines, caplog):
    own, content = ProjectHooks(), {"backend": "musicnn", "layer": "taggram"}
    own.after_context_created(SimpleNamespace(config_loader={"parameters": {"tags": content, "music": "tags"}}))
    assert {"extract_tags", "tags-efficientnet_descriptors_video"} <= project_pipelines.keys()
    catalog = DataCatalog({"params:backend_defaults": MemoryDataset({"weights": "random"})})
    catalog["params:tags"] = MemoryDataset(content)
    own.after_catalog_created(catalog)
    assert catalog.load("params:tags") == {"weights": "random", **content}
    assert not caplog.records
    own.after_context_created(make_context())
    assert "tags" not in list_backends()
    assert "tags.features" not in project_pipelines["__default__"].datasets()


def test_steps_are_not_divided_among_processes():
    with pytest.raises(ParameterError, match=r"--runner=ParallelRunner cannot be used: .* docs/scaling\.md"):
        ProjectHooks().after_catalog_created(SharedMemoryDataCatalog())
