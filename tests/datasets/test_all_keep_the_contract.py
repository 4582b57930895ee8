"""What every dataset of the catalog keeps to: round trip, existence, missing file, description."""

import doctest
import importlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from kedro.io import DatasetError

import vmnet_pipeline.datasets as datasets
from vmnet_pipeline.errors import VmnetError
from vmnet_pipeline.features.store import FeatureChunk, FeatureResult, FeatureRow, FeatureStore
from vmnet_pipeline.ingestion.discovery import SourceItem
from vmnet_pipeline.ingestion.manifest import build_manifest
from vmnet_pipeline.ingestion.splits import Split
from vmnet_pipeline.models.checkpoints import Checkpoint
from vmnet_pipeline.pairs.packing import FeatureSide, plan_pairs
from vmnet_pipeline.types import Fingerprint


def make_chunk():
    return FeatureChunk(Fingerprint("toy"), (FeatureResult(FeatureRow("a", "done", "s"), np.ones((1, 2), np.float32)),))


def make_pairs(folder):
    FeatureStore(folder).write(make_chunk())
    side = FeatureSide("toy", FeatureStore(folder), lambda feature: feature[0])
    return plan_pairs(side, side, Split(("a",), (), ()), {})


def make_checkpoint():
    from vmnet_pipeline.models.factory import build_model

    config = {
        "music_tower": "musicnn", "video_tower": "musicnn", "music_shape": [4], "video_shape": [4],
        "embedding_dim": 8, "dropout": 0.1, "standardise": False,
    }  # fmt: skip
    tensors = {name: tensor.clone() for name, tensor in build_model(**config).state_dict().items()}
    return Checkpoint(model_config=config, tensors=tensors)


def make_embeddings():
    from vmnet_pipeline.inference.embeddings import EmbeddingPlan

    return EmbeddingPlan(("007",), ("s",), 3, "net", iter([np.eye(1, 3, dtype=np.float32)]))


def make_index():
    import pandas as pd

    from vmnet_pipeline.search.vector_index import VectorIndex

    return VectorIndex.build(np.eye(2, 3, dtype=np.float32), pd.DataFrame({"id": ["007", "b"]}))


def make_table():
    import pandas as pd

    return pd.DataFrame({"id": ["a"], "rank": [1]})


CASES = {
    "CheckpointDataset": (lambda folder: make_checkpoint(), lambda saved, loaded: all(
        torch.equal(saved.tensors[name], loaded.tensors[name]) for name in saved.tensors)),
    "EmbeddingsDataset": (
        lambda folder: make_embeddings(),
        lambda saved, loaded: (loaded.ids, loaded.vectors.tolist()) == (("007",), [[1, 0, 0]]),
    ),
    "VectorIndexDataset": (lambda folder: make_index(), lambda saved, loaded: loaded.ids == saved.ids),
    "FeatureStoreDataset": (lambda folder: make_chunk(), lambda saved, loaded: loaded.done_ids() == ["a"]),
    "IdListDataset": (lambda folder: ("007", "b"), lambda saved, loaded: loaded == saved),
    "MediaManifestDataset": (
        lambda folder: build_manifest([SourceItem("007", "", "", "", "no_video_file", "x")], lambda path: None),
        lambda saved, loaded: saved.equals(loaded),
    ),
    "PackedPairsDataset": (lambda folder: make_pairs(folder / "store"), lambda saved, loaded: loaded.ids == ("a",)),
    "TrainingHistoryDataset": (lambda folder: [{"epoch": 1, "loss": 0.5}], lambda saved, loaded: loaded == saved),
    "JSONDataset": (lambda folder: {"a": [1]}, lambda saved, loaded: loaded == saved),
    "TextDataset": (lambda folder: "text", lambda saved, loaded: loaded == saved),
    "CSVDataset": (lambda folder: make_table(), lambda saved, loaded: saved.equals(loaded)),
    "ParquetDataset": (lambda folder: make_table(), lambda saved, loaded: saved.equals(loaded)),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_round_trip_and_existence(name, tmp_path):
    make, same = CASES[name]
    dataset = getattr(datasets, name)(filepath=str(tmp_path / "place"))
    assert not dataset.exists()
    data = make(tmp_path)
    dataset.save(data)
    if name == "FeatureStoreDataset":
        assert not dataset.exists()
        dataset.confirm()
    assert dataset.exists()
    assert same(data, dataset.load())
    assert str(tmp_path / "place") in str(dataset)
    dataset.release()
    assert same(data, dataset.load())


@pytest.mark.parametrize(
    "name",
    [
        "CheckpointDataset",
        "EmbeddingsDataset",
        "IdListDataset",
        "MediaManifestDataset",
        "PackedPairsDataset",
        "VectorIndexDataset",
    ],
)
def test_loading_what_is_not_there_is_an_error_of_the_project(name, tmp_path):
    dataset = getattr(datasets, name)(filepath=str(tmp_path / "place"))
    with pytest.raises(DatasetError) as caught:
        dataset.load()
    assert isinstance(caught.value.__cause__, VmnetError)


def make_figure():
    from matplotlib.figure import Figure

    return Figure()


@pytest.mark.parametrize("name", ["JSONDataset", "TextDataset", "CSVDataset", "ParquetDataset", "MatplotlibDataset"])
def test_while_a_file_is_written_the_old_one_is_there(name, tmp_path):
    make = make_figure if name == "MatplotlibDataset" else lambda: CASES[name][0](tmp_path)
    dataset, place = getattr(datasets, name)(filepath=str(tmp_path / "place")), tmp_path / "place"
    dataset.save(make())
    before = place.read_bytes()
    open_file, seen = dataset._fs.open, []

    def open_and_look(path, **settings):
        file = open_file(path, **settings)
        seen.append(place.read_bytes())
        return file

    dataset._fs = SimpleNamespace(open=open_and_look, invalidate_cache=lambda path: None)
    dataset.save(make())
    assert seen == [before]
    assert [path.name for path in tmp_path.iterdir()] == ["place"]


def test_only_keywords_are_taken():
    for name in datasets.__all__:
        with pytest.raises(TypeError):
            getattr(datasets, name)("somewhere")


def test_the_lazy_names_are_all_there():
    assert sorted(datasets.__all__) == sorted(datasets._MODULES)
    with pytest.raises(AttributeError):
        _ = datasets.Nothing


@pytest.mark.parametrize(
    "module",
    [
        "extra_columns",
        "feature_store",
        "folder",
        "id_list",
        "evaluation_results",
        "reference_files",
        "stage_log",
        "training_history",
    ],
)
def test_examples_in_docstrings(module):
    result = doctest.testmod(importlib.import_module(f"vmnet_pipeline.datasets.{module}"))
    assert result.attempted > 0
    assert result.failed == 0


def test_a_folder_dataset_cannot_be_saved(tmp_path):
    with pytest.raises((DatasetError, NotImplementedError)):
        datasets.FolderDataset(filepath=str(tmp_path)).save(None)


def test_the_manifest_lists_a_bare_folder_instead(tmp_path):
    (tmp_path / "a.mp3").write_bytes(b"x")
    dataset = datasets.MediaManifestDataset(filepath=str(tmp_path / "none.parquet"), audio_dir=str(tmp_path))
    assert dataset.load()["id"].tolist() == ["a"]


def test_a_checkpoint_from_elsewhere_has_no_history_but_a_damaged_one_is_an_error(tmp_path):
    path = tmp_path / "training_history.json"
    dataset = datasets.TrainingHistoryDataset(filepath=str(path))
    assert dataset.load() == []
    path.write_text("[{")
    with pytest.raises(DatasetError, match="damaged"):
        dataset.load()


def test_reference_files_are_found_and_never_written(tmp_path):
    dataset = datasets.ReferenceFilesDataset(variant="vmnet_vggish", pairs_dir=str(tmp_path))
    assert not dataset.exists()
    (tmp_path / "train").mkdir()
    assert dataset.exists()
    assert dataset.load().variant == "vmnet_vggish"
    assert str(tmp_path) in str(dataset)
    with pytest.raises((DatasetError, NotImplementedError)):
        dataset.save(None)


@pytest.mark.parametrize("name", ["EmbeddingsDataset", "VectorIndexDataset"])
def test_what_was_made_before_is_none_where_it_is_missing_or_damaged(name, tmp_path, caplog):
    make, same = CASES[name]
    dataset = getattr(datasets, name)(filepath=str(tmp_path / "place"), optional=True)
    assert dataset.load() is None
    data = make(tmp_path)
    dataset.save(data)
    assert same(data, dataset.load())
    assert "made anew" not in caplog.text
    for path in (path for path in (tmp_path / "place").rglob("*") if path.suffix in (".npy", ".faiss")):
        path.write_bytes(b"damaged")
    assert dataset.load() is None
    assert "place is rebuilt: " in caplog.text
    with pytest.raises(DatasetError):
        getattr(datasets, name)(filepath=str(tmp_path / "place")).load()


def test_results_of_other_variants_are_found_as_far_as_they_are_whole(tmp_path):
    import pandas as pd

    for variant in ("own", "other", "torn", "half"):
        (tmp_path / variant).mkdir()
        (tmp_path / variant / "evaluation.json").write_text('{"pool_size": 3}')
        pd.DataFrame({"id": ["a"]}).to_parquet(tmp_path / variant / "query_ranks.parquet")
    (tmp_path / "torn" / "evaluation.json").write_text("{")
    (tmp_path / "half" / "query_ranks.parquet").unlink()
    (tmp_path / "notes.json").write_text("{}")
    dataset = datasets.MeasuredResultsDataset(filepath=str(tmp_path), variant="own")
    found = dataset.load()
    assert found["variant"] == "own"
    assert found["comparison"] is None
    assert list(found["variants"]) == ["other"]
    assert found["variants"]["other"]["evaluation"] == {"pool_size": 3}
    assert found["variants"]["other"]["query_ranks"]["id"].tolist() == ["a"]
    (tmp_path / "own" / "comparison.json").write_text('{"rows": []}')
    assert dataset.load()["comparison"] == {"rows": []}


@pytest.mark.parametrize("name", ["MeasuredResultsDataset", "StageLogDataset"])
def test_what_the_project_itself_writes_cannot_be_saved(name, tmp_path):
    with pytest.raises((DatasetError, NotImplementedError)):
        getattr(datasets, name)(filepath=str(tmp_path)).save(None)
