"""Names of the pipelines, as used in `kedro run --pipeline NAME`."""

from __future__ import annotations

from kedro.pipeline import Pipeline

from vmnet_pipeline.backends.registry import BACKENDS
from vmnet_pipeline.pipelines.compare.pipeline import create_pipeline as create_compare
from vmnet_pipeline.pipelines.embed.pipeline import create_pipeline as create_embed
from vmnet_pipeline.pipelines.evaluate.pipeline import create_pipeline as create_evaluate
from vmnet_pipeline.pipelines.extract.pipeline import create_pipeline as create_extract
from vmnet_pipeline.pipelines.index.pipeline import create_pipeline as create_index
from vmnet_pipeline.pipelines.index.pipeline import create_reference_pipeline as create_reference_index
from vmnet_pipeline.pipelines.ingest.pipeline import create_pipeline as create_ingest
from vmnet_pipeline.pipelines.split.pipeline import create_pipeline as create_split
from vmnet_pipeline.pipelines.train.pipeline import create_pipeline as create_train
from vmnet_pipeline.pipelines.tune.pipeline import create_pipeline as create_tune

VARIANTS = {"vmnet_musicnn": ("musicnn", "efficientnet"), "vmnet_vggish": ("vggish", "efficientnet")}
"""Variant to its pair of backends, music and video."""

DEFAULT_VARIANT = "vmnet_musicnn"


def chain_variant(variant: str) -> Pipeline:
    """Everything from raw media to the report, for one variant."""
    parts = [
        create_ingest(),
        *(create_extract(backend) for backend in VARIANTS[variant]),
        create_split(),
        create_train(variant, VARIANTS[variant]),
        create_evaluate(variant, VARIANTS[variant]),
    ]
    return sum(parts, Pipeline([]))


def register_pipelines() -> dict[str, Pipeline]:
    """All pipelines; `train` and the like are of the default variant, `__default__` is its whole chain."""
    backends = VARIANTS[DEFAULT_VARIANT]
    return {
        "__default__": chain_variant(DEFAULT_VARIANT),
        "ingest": create_ingest(),
        **{f"extract_{backend}": create_extract(backend) for backend in BACKENDS},
        "split": create_split(),
        "train": create_train(DEFAULT_VARIANT, backends),
        "evaluate": create_evaluate(DEFAULT_VARIANT, backends),
        "embed": create_embed(DEFAULT_VARIANT, backends),
        "index": create_index(DEFAULT_VARIANT),
        **{f"embed_{variant}": create_embed(variant, backends) for variant, backends in VARIANTS.items()},
        **{f"index_{variant}": create_index(variant) for variant in VARIANTS},
        "compare": create_compare(DEFAULT_VARIANT, backends),
        "tune": create_tune(DEFAULT_VARIANT, backends),
        **{variant: chain_variant(variant) for variant in VARIANTS},
    }


def register_reference_pipelines(variant: str) -> dict[str, Pipeline]:
    """The pipelines on the user's own feature files (`pairs_dir` and the like); no node needs media."""
    train, evaluate = create_train(variant), create_evaluate(variant)
    return {
        "__default__": train + evaluate,
        "train": train,
        "evaluate": evaluate,
        "embed": create_embed(variant),
        "index": create_reference_index(variant),
        "compare": create_compare(variant),
        "tune": create_tune(variant),
    }
