"""What a run in MLflow is called."""

from types import SimpleNamespace

import pytest
from kedro.io import DataCatalog, MemoryDataset

from vmnet_pipeline.hooks.tracking import label_run
from vmnet_pipeline.models.checkpoints import Checkpoint
from vmnet_pipeline.params import TrainParams
from vmnet_pipeline.pipeline_registry import register_pipelines

STAGES = SimpleNamespace(folder=SimpleNamespace(parent=SimpleNamespace(name="clips-1a2b")))


class Catalog(DataCatalog):
    """With the folder of records that names the collection."""

    def get(self, name, *arguments, **options):
        return STAGES if name == "stage_log" else super().get(name, *arguments, **options)


@pytest.fixture(scope="module")
def pipelines():
    return register_pipelines()


def label(pipeline, train=None, shuffle_pairs=False, checkpoint_params=None):
    checkpoint = Checkpoint({}, {}, params=checkpoint_params or {})
    catalog = Catalog(
        {
            "params:train": MemoryDataset(train or {}),
            "params:evaluate": MemoryDataset({"shuffle_pairs": shuffle_pairs}),
            "vmnet_fused.checkpoint": MemoryDataset(checkpoint, copy_mode="assign"),
        }
    )
    return label_run(pipeline, catalog)


def test_a_training_is_named_by_collection_variant_protocol_and_seed(pipelines):
    labels = label(pipelines["__default__"], {"protocol": "best", "seed": 3})
    assert labels.name == "clips-1a2b · vmnet_fused · best · seed 3"
    assert labels.tags == {
        "kind": "training", "collection": "clips-1a2b", "variant": "vmnet_fused", "protocol": "best", "seed": "3",
    }  # fmt: skip
    assert label(pipelines["train"], TrainParams(seed=3)).name == "clips-1a2b · vmnet_fused · default · seed 3"


def test_mismatched_pairs_are_a_control(pipelines):
    labels = label(pipelines["__default__"], {"seed": 17}, shuffle_pairs=True)
    assert labels.name == "clips-1a2b · vmnet_fused · default · seed 17 · control"
    assert labels.kind == "control"


def test_an_evaluation_is_named_by_what_was_trained(pipelines):
    labels = label(pipelines["evaluate"], {"protocol": "default"}, checkpoint_params={"protocol": "best", "seed": 5})
    assert labels.name == "clips-1a2b · vmnet_fused · best · seed 5 · evaluation"


@pytest.mark.parametrize(
    ("pipeline", "kind", "variant"),
    [
        ("ingest", "ingestion", ""),
        ("extract_musicnn", "extraction", ""),
        ("embed", "embedding", "vmnet_fused"),
        ("index", "index", "vmnet_fused"),
        ("compare", "comparison", "vmnet_fused"),
        ("tune", "tuning", "vmnet_fused"),
    ],
)
def test_other_runs_are_of_other_kinds(pipelines, pipeline, kind, variant):
    labels = label(pipelines[pipeline], {"seed": 17})
    assert (labels.kind, labels.variant) == (kind, variant)
    assert labels.name.endswith(f" · {kind}")
