"""The pipelines as Kedro sees them."""

import subprocess
import sys
from pathlib import Path

import pytest
from kedro.config import OmegaConfigLoader
from kedro.io import DataCatalog

from vmnet_pipeline.params import DEFAULT_VARIANT, VARIANTS
from vmnet_pipeline.pipeline_registry import (
    register_library_pipelines,
    register_pipelines,
    register_reference_pipelines,
)
from vmnet_pipeline.settings import CONFIG_LOADER_ARGS

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "tensorflow", "librosa", "pandas", "scipy", "sklearn", "matplotlib", "openvino", "mlflow", "av",
         "transformers", "torchvision", "huggingface_hub")  # fmt: skip


@pytest.fixture(scope="module")
def pipelines():
    return register_pipelines()


@pytest.fixture(scope="module")
def catalog():
    loader = OmegaConfigLoader(
        str(ROOT / "conf"),
        base_env="base",
        default_run_env="local",
        custom_resolvers=CONFIG_LOADER_ARGS["custom_resolvers"],
    )
    return DataCatalog.from_config(loader["catalog"])


def test_the_names_that_users_type_are_there(pipelines):
    encoders = {"clap", "mert", "ast", "clip", "siglip2", "dinov3", "videoprism", "pe-av-audio", "pe-av-video"}
    own = {"vggish", "musicnn", "musicnn_tags", "efficientnet", "descriptors_audio", "vmnet2017", "descriptors_video"}
    backends = own | encoders | {"audio_encoder", "frame_encoder", "clip_encoder"}
    expected = {"__default__", "ingest", "extract", "split", "train", *(f"extract_{backend}" for backend in backends)}
    made = {f"{step}{variant}" for step in ("embed", "index") for variant in ("", *(f"_{name}" for name in VARIANTS))}
    assert expected | {"evaluate", "compare", "tune", *VARIANTS} | made == set(pipelines)


def test_a_library_has_no_split_and_no_training(catalog):
    pipelines = register_library_pipelines("library", VARIANTS["vmnet_fused"])
    extractions = {f"extract_{backend}" for backend in (*VARIANTS["vmnet_fused"].backends, "musicnn_tags")}
    assert {"__default__", "ingest", "extract", "embed", "index"} | extractions == set(pipelines)
    free = {name for name in pipelines["__default__"].inputs() if not name.startswith("params:")}
    assert {"library.checkpoint", "probe_cache", "extra_columns"} <= free
    assert all("train" not in name and "pairs" not in name for name in pipelines["__default__"].datasets())
    assert all(name in catalog for name in free)


def test_nothing_but_the_plan_of_an_extraction_is_kept_in_memory(pipelines, catalog):
    for name, pipeline in pipelines.items():
        for dataset in pipeline.datasets():
            if dataset.startswith("params:") or dataset == "parameters" or dataset.endswith(".missing"):
                continue
            assert dataset in catalog, f"{dataset} of {name} is not in the catalog"
            assert type(catalog[dataset]).__name__ != "MemoryDataset"


def test_every_dataset_has_a_layer_for_kedro_viz(pipelines, catalog):
    for dataset in pipelines[DEFAULT_VARIANT].datasets():
        if not (dataset.startswith("params:") or dataset == "parameters" or dataset.endswith(".missing")):
            assert catalog[dataset].metadata["kedro-viz"]["layer"], dataset


def name_found(variant):
    """What the report takes as far as it is there."""
    return {"stage_log", f"{variant}.measured_results"}


def test_the_whole_chain_is_one_piece(pipelines):
    free = {name for name in pipelines["__default__"].inputs() if not name.startswith("param")}
    assert free == {
        "probe_cache",
        *(f"{backend}.stored_features" for backend in VARIANTS[DEFAULT_VARIANT].backends),
        f"{DEFAULT_VARIANT}.training_state",
        *name_found(DEFAULT_VARIANT),
    }


def test_a_split_that_cannot_be_made_is_refused_before_anything_is_extracted(pipelines):
    names = [node.name for node in pipelines["__default__"].nodes]
    assert names.index("split_items") < min(i for i, name in enumerate(names) if name.endswith(".extract_features"))


@pytest.mark.parametrize("variant", VARIANTS)
def test_files_of_ones_own_need_nothing_of_the_media_pipelines(variant, catalog):
    parts = register_reference_pipelines(variant)
    whole = parts["train"] + parts["evaluate"]
    assert {node.name for node in parts["__default__"].nodes} == {node.name for node in whole.nodes}
    free = {name for name in whole.inputs() if not name.startswith("param")}
    assert free == {f"{variant}.reference_files", f"{variant}.training_state", *name_found(variant)}
    named = {name for name in whole.datasets() if not name.startswith("param")}
    assert all(name in catalog and name.startswith(f"{variant}.") for name in named - {"stage_log"})
    evaluation = {name for name in parts["evaluate"].inputs() if not name.startswith("param")}
    needed = {f"{variant}.{name}" for name in ("reference_files", "checkpoint", "training_history")}
    assert evaluation == {*needed, *name_found(variant)}


@pytest.mark.process
def test_nothing_heavy_is_imported_to_register_the_pipelines():
    code = (
        "import sys; import vmnet_pipeline.settings, vmnet_pipeline.cli, vmnet_pipeline.datasets;"
        "from vmnet_pipeline.pipeline_registry import register_pipelines; register_pipelines();"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT / "src")
    assert done.stdout.strip() == "[]"
