"""Catalog datasets of the project, imported on first use, so that the catalog loads quickly."""

from __future__ import annotations

import importlib
from typing import Any

_MODULES = {
    "CSVDataset": "atomic_file",
    "CheckpointDataset": "checkpoint",
    "EmbeddingsDataset": "embeddings",
    "ExtraColumnsDataset": "extra_columns",
    "FeatureStoreDataset": "feature_store",
    "FolderDataset": "folder",
    "IdListDataset": "id_list",
    "JSONDataset": "atomic_file",
    "MatplotlibDataset": "atomic_file",
    "MeasuredResultsDataset": "evaluation_results",
    "MediaManifestDataset": "media_manifest",
    "PackedPairsDataset": "packed_pairs",
    "ParquetDataset": "atomic_file",
    "ReferenceFilesDataset": "reference_files",
    "StageLogDataset": "stage_log",
    "TextDataset": "atomic_file",
    "TrainingHistoryDataset": "training_history",
    "VectorIndexDataset": "vector_index",
}

__all__ = [*_MODULES]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
