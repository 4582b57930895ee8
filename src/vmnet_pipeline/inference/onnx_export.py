"""Export the towers of a checkpoint to ONNX.

A file holds one whole side: standardisation, tower, L2 normalisation. Its input is that of `Embedder` with
`pooled=True`, or sequences with their mask; its metadata describe it.
"""

from __future__ import annotations

import json
import logging
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from vmnet_pipeline.errors import CheckpointError
from vmnet_pipeline.inference.input_spec import InputSpec
from vmnet_pipeline.models.checkpoints import build_from_checkpoint, digest_checkpoint
from vmnet_pipeline.models.types import MaskedSequence
from vmnet_pipeline.storage.atomic import replace_atomically
from vmnet_pipeline.types import MODALITY_OF, Side

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from vmnet_pipeline.models.checkpoints import Checkpoint
    from vmnet_pipeline.models.two_tower import VMNet

OPSET = 18
TOLERANCE = 1e-5  # largest difference of any value of an embedding from torch


def export_towers(checkpoint: Checkpoint, folder: Path) -> dict[Side, Path]:
    """Write and return `music.onnx` and `video.onnx`; each is compared with the network before it gets its name.

    An ensemble is one graph with all members.

    Raises:
        CheckpointError: The packages of the extra `onnx` are missing, or a file does not compute what the network does.
    """
    try:
        import onnxruntime  # noqa: F401 - the exporter looks for the first two itself
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise CheckpointError(
            f"export needs packages that are not installed ({error}): pip install 'vmnet-pipeline[onnx]'"
        ) from error
    model = build_from_checkpoint(checkpoint).requires_grad_(False)
    folder.mkdir(parents=True, exist_ok=True)
    return {side: _export_side(model, checkpoint, side, folder / f"{side}.onnx") for side in MODALITY_OF}


class _OneSide(nn.Module):
    """Embeds features of one side; its arguments are tensors, as a graph needs."""

    def __init__(self, model: VMNet, side: Side) -> None:
        super().__init__()
        self.scaler = model.music_scaler if side == "music" else model.video_scaler
        self.tower = model.music if side == "music" else model.video

    def forward(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, ...) float32, and of sequences the (B, T) bool mask -> (B, E) float32 of unit rows."""
        embedding: Tensor = self.tower(
            self.scaler(features if mask is None else MaskedSequence(features, mask))
        ).embedding
        return embedding


def _export_side(model: VMNet, checkpoint: Checkpoint, side: Side, path: Path) -> Path:
    spec = InputSpec.of(checkpoint.model_config, side)
    network = _OneSide(model, side).eval()
    program = _trace(network, spec)
    program.model.metadata_props.update(describe_side(checkpoint, spec))
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()  # remove the call stack, which has local paths
    with replace_atomically(path) as temporary:
        program.save(str(temporary), external_data=False)
        _compare(network, spec, temporary)
    return path


def _trace(network: _OneSide, spec: InputSpec) -> Any:
    example = _draw_batch(spec, n_items=2)
    axes = {0: torch.export.Dim("items")}
    if spec.takes_steps:
        axes[1] = torch.export.Dim("steps")
    names = ["features", "mask"][: len(example)]
    with _quiet():
        return torch.onnx.export(
            network, example, dynamo=True, verbose=False, opset_version=OPSET,
            input_names=names, output_names=["embedding"], dynamic_shapes=dict.fromkeys(names, axes),
        )  # fmt: skip


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide the exporter's warnings about optional packages and deprecations."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def describe_side(checkpoint: Checkpoint, spec: InputSpec) -> dict[str, str]:
    """Metadata of a file: its input, output and network."""
    fingerprint = checkpoint.fingerprints.get(MODALITY_OF[spec.side])
    config = checkpoint.model_config
    if spec.takes_steps:
        taken = (
            f"(items, steps, {spec.shape[1]}) float32, features of one item over time, at most {spec.shape[0]} steps"
        )
    elif len(spec.shape) == 2:
        taken = f"(items, {spec.shape[0]}, {spec.shape[1]}) float32, per patch the mean over time and mel of its maps"
    else:
        taken = f"(items, {spec.shape[0]}) float32, the mean over time of one item's features"
    return {
        "vmnet.side": spec.side,
        "vmnet.checkpoint": digest_checkpoint(checkpoint),
        "vmnet.tower": str(config[f"{spec.side}_tower"]),
        "vmnet.n_members": str(config.get("n_members", 1)),
        "vmnet.backend": fingerprint.backend if fingerprint else "",
        "vmnet.backend_settings": json.dumps(fingerprint.settings if fingerprint else {}, sort_keys=True),
        "vmnet.features": f"{taken}; as the backend gives them, neither scaled nor normalised",
        "vmnet.mask": "(items, steps) bool, true where a step is; each item has at least one"
        if spec.takes_steps
        else "",
        "vmnet.embedding": "(items, E) float32, rows of unit length; a dot product of both sides is their cosine",
    }


def _compare(network: _OneSide, spec: InputSpec, path: Path) -> None:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    for n_items in (1, 3):
        batch = _draw_batch(spec, n_items)
        names = [item.name for item in session.get_inputs()]
        found = session.run(None, {name: part.numpy() for name, part in zip(names, batch, strict=True)})[0]
        with torch.inference_mode():
            difference = float((torch.from_numpy(found) - network(*batch)).abs().max())
        if not difference <= TOLERANCE:
            raise CheckpointError(
                f"the exported {spec.side} tower differs by {difference:.1e} from the network, more than {TOLERANCE}; "
                "use the network itself, or try other versions of torch and onnxscript"
            )


def _draw_batch(spec: InputSpec, n_items: int) -> tuple[Tensor, ...]:
    """Random features, the same at every call; the last sequence is one step shorter."""
    generator = torch.Generator().manual_seed(n_items)
    if not spec.takes_steps:
        return (torch.rand((n_items, *spec.shape), generator=generator),)
    n_steps = max(2, min(spec.shape[0], 3 + n_items))
    mask = torch.ones((n_items, n_steps), dtype=torch.bool)
    mask[-1, -1] = False
    return torch.rand((n_items, n_steps, spec.shape[1]), generator=generator), mask
