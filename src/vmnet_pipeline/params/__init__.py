"""The parameters of every pipeline, checked when a run starts, before anything expensive.

One model per top-level key of `conf/base/parameters/`. The values in conf are the defaults that a run
uses; unknown keys are refused, so that a misspelt name never goes unnoticed.
"""

from __future__ import annotations

from vmnet_pipeline.params.base import LimitParams, Params, flatten_settings
from vmnet_pipeline.params.evaluation import EvaluateParams
from vmnet_pipeline.params.experiments import BASELINES, CompareParams, SearchDimension, TuneParams
from vmnet_pipeline.params.extraction import ExtractParams
from vmnet_pipeline.params.ingestion import IngestParams, ReferenceParams, SplitParams
from vmnet_pipeline.params.mix import MixParams
from vmnet_pipeline.params.pieces import PassageParams, PieceParams
from vmnet_pipeline.params.search import EmbedParams, IndexKind, IndexParams
from vmnet_pipeline.params.training import BEST_PROPOSED, SEQUENCE_TOWERS, LossParams, TrainParams
from vmnet_pipeline.params.variants import DEFAULT_VARIANT, VARIANTS, VariantParams

__all__ = [
    "BASELINES",
    "BEST_PROPOSED",
    "DEFAULT_VARIANT",
    "SEQUENCE_TOWERS",
    "VARIANTS",
    "CompareParams",
    "EmbedParams",
    "EvaluateParams",
    "ExtractParams",
    "IndexKind",
    "IndexParams",
    "IngestParams",
    "LimitParams",
    "LossParams",
    "MixParams",
    "Params",
    "PassageParams",
    "PieceParams",
    "ReferenceParams",
    "SearchDimension",
    "SplitParams",
    "TrainParams",
    "TuneParams",
    "VariantParams",
    "flatten_settings",
]
