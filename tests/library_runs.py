"""A small network on descriptors, and runs on libraries with the project's own catalog."""

from __future__ import annotations

from pathlib import Path

import torch
from kedro.config import OmegaConfigLoader
from kedro.io import DataCatalog
from kedro.runner import SequentialRunner

from vmnet_pipeline.backends.registry import make_backend
from vmnet_pipeline.hooks.library import adapt_catalog, choose_library_model
from vmnet_pipeline.models.checkpoints import Checkpoint, save_checkpoint
from vmnet_pipeline.models.factory import build_model
from vmnet_pipeline.params import EmbedParams, ExtractParams, IndexParams, IngestParams
from vmnet_pipeline.pipeline_registry import register_library_pipelines
from vmnet_pipeline.settings import CONFIG_LOADER_ARGS

ROOT = Path(__file__).parents[1]
MODELS = {"embed": EmbedParams, "index": IndexParams, "ingest": IngestParams, "extract": ExtractParams}
STEPS = ("ingest", "extract", "embed", "index")
CONFIG = {
    "music_tower": "musicnn", "video_tower": "musicnn", "music_shape": [47], "video_shape": [31],
    "embedding_dim": 16, "dropout": 0.1, "standardise": False,
}  # fmt: skip


def save_descriptor_network(folder: Path, seed: int = 0) -> Path:
    backends = [make_backend({"backend": f"descriptors_{side}", "weights_dir": "w"}) for side in ("audio", "video")]
    torch.manual_seed(seed)
    tensors = {name: tensor.clone() for name, tensor in build_model(**CONFIG).state_dict().items()}
    fingerprints = {backend.modality: backend.fingerprint() for backend in backends}
    save_checkpoint(folder, Checkpoint(CONFIG, tensors, fingerprints))
    return folder


def run_library(library: Path, checkpoint: Path, *steps: str, **runtime_params) -> None:
    """`kedro run --pipelines=ingest,extract,embed,index --params library=...` in the current folder."""
    params = {"library": str(library), "checkpoint": str(checkpoint), **runtime_params}
    loader = OmegaConfigLoader(
        str(ROOT / "conf"), base_env="base", default_run_env="local", runtime_params=params,
        custom_resolvers=CONFIG_LOADER_ARGS["custom_resolvers"],
    )  # fmt: skip
    catalog, parameters = DataCatalog.from_config(loader["catalog"]), loader["parameters"]
    for name, value in parameters.items():
        catalog[f"params:{name}"] = MODELS[name].model_validate(value) if name in MODELS else value
    model = choose_library_model(parameters, params)
    adapt_catalog(model, catalog)
    pipelines = register_library_pipelines(model.variant, model.backends)
    SequentialRunner().run(sum((pipelines[name] for name in steps or STEPS), type(pipelines["ingest"])([])), catalog)
