"""Names of the pipelines, as used in `kedro run --pipeline NAME`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kedro.pipeline import Pipeline

from vmnet_pipeline.backends.registry import list_backends
from vmnet_pipeline.params import VARIANTS, VariantParams
from vmnet_pipeline.pipelines.compare.pipeline import create_pipeline as create_compare
from vmnet_pipeline.pipelines.embed.pipeline import create_pipeline as create_embed
from vmnet_pipeline.pipelines.evaluate.pipeline import create_pipeline as create_evaluate
from vmnet_pipeline.pipelines.extract.pipeline import create_pipeline as create_extract
from vmnet_pipeline.pipelines.index.pipeline import WORD_BACKENDS
from vmnet_pipeline.pipelines.index.pipeline import create_pipeline as create_index
from vmnet_pipeline.pipelines.index.pipeline import create_reference_pipeline as create_reference_index
from vmnet_pipeline.pipelines.ingest.pipeline import create_pipeline as create_ingest
from vmnet_pipeline.pipelines.split.pipeline import create_pipeline as create_split
from vmnet_pipeline.pipelines.train.pipeline import create_pipeline as create_train
from vmnet_pipeline.pipelines.tune.pipeline import create_pipeline as create_tune

if TYPE_CHECKING:
    from collections.abc import Mapping


def chain_variant(variant: str, backends: VariantParams) -> Pipeline:
    """Everything from raw media to the report, for one variant."""
    parts = [
        create_ingest(),
        *(create_extract(backend) for backend in backends.backends),
        create_split(),
        create_train(variant, backends),
        create_evaluate(variant, backends),
    ]
    return sum(parts, Pipeline([]))


def register_pipelines(variants: Mapping[str, VariantParams] = VARIANTS) -> dict[str, Pipeline]:
    """All pipelines.

    Args:
        variants: The first is the default one: `train` and the like are of it, `__default__` is its whole chain.
    """
    default, backends = next(iter(variants.items()))
    return {
        "__default__": chain_variant(default, backends),
        "ingest": create_ingest(),
        "extract": chain_extraction(backends),
        **{f"extract_{backend}": create_extract(backend) for backend in list_backends()},
        "split": create_split(),
        "train": create_train(default, backends),
        "evaluate": create_evaluate(default, backends),
        "embed": create_embed(default, backends),
        "index": create_index(default),
        **{f"embed_{variant}": create_embed(variant, own) for variant, own in variants.items()},
        **{f"index_{variant}": create_index(variant) for variant in variants},
        "compare": create_compare(default, backends),
        "tune": create_tune(default, backends),
        **{variant: chain_variant(variant, own) for variant, own in variants.items()},
    }


def chain_extraction(backends: VariantParams) -> Pipeline:
    """The features of both sides of a variant."""
    return sum((create_extract(backend) for backend in backends.backends), Pipeline([]))


def register_library_pipelines(variant: str, backends: VariantParams) -> dict[str, Pipeline]:
    """The pipelines of a library: no pairs, no training; `backends` are those that the network was trained on.

    Others may be extracted for the search by words.
    """
    parts = {
        "ingest": create_ingest(),
        "extract": chain_extraction(backends),
        "embed": create_embed(variant, backends),
        "index": create_index(variant),
    }
    each = {
        f"extract_{name}": create_extract(name)
        for name in {*backends.backends, *WORD_BACKENDS["music"], *WORD_BACKENDS["video"]}
    }
    return {"__default__": sum(parts.values(), Pipeline([])), **parts, **each}


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
