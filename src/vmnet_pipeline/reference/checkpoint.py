"""Import checkpoints of the original code (TensorFlow 1, `model.ckpt-N`) without TensorFlow.

A fully connected `W` is [in, out], a filter along time is [k, 1, 1, 1]. Variables that no embedding depends on (the
domain classifier, layers that the towers do not use, Adam's slots, the step) are ignored.
"""

from __future__ import annotations

import mmap
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vmnet_pipeline.backends.tensorflow_checkpoint import read_checkpoint
from vmnet_pipeline.errors import CheckpointError, WeightsError
from vmnet_pipeline.models.checkpoints import Checkpoint, StartPoint, build_from_checkpoint, read_versions
from vmnet_pipeline.models.factory import MUSIC_LAYERS, VIDEO_LAYERS
from vmnet_pipeline.reference import variables as original
from vmnet_pipeline.reference.variables import GivenTowers, Towers

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from torch import Tensor

    from vmnet_pipeline.reference.variables import Variables

N_PATCHES = 62
MAX_NAME = 200
MAX_LISTING_BYTES = 1 << 16
MAX_GRAPH_BYTES = 2**31  # of any protobuf message
DROPOUT = 0.1
DATA_SUFFIX = ".data-00000-of-00001"
_SLOT = re.compile(r".*/Adam(_\d+)?$")


def import_checkpoint(
    path: str | Path, *, music_layers: int | None = None, video_layers: int | None = None, linear: bool | None = None
) -> Checkpoint:
    """Read a checkpoint of the original code.

    Args:
        path: Prefix `.../model.ckpt-N`, one of its files, or a folder: the `summaries_dir` of a training or its
            `checkpoints`, whose latest checkpoint is taken.
        music_layers: `num_layer_x` of the training, where the checkpoint does not tell it.
        video_layers: `num_layer_y` of the training.
        linear: `is_linear` of the training.

    Returns:
        A checkpoint without fingerprints: nothing tells which features it was trained on, but their widths are known.

    Raises:
        CheckpointError: There is none, it is damaged, its variables are not those of the original (names them), or it
            does not tell what its towers are.
    """
    prefix = find_prefix(Path(path).expanduser())
    return _import(prefix, _read_variables(prefix), GivenTowers(music_layers, video_layers, linear))[0]


def import_start(path: str | Path) -> StartPoint:
    """Read a checkpoint of the original code with its optimiser's moments and steps, to continue its training."""
    prefix = find_prefix(Path(path).expanduser())
    variables = _read_variables(prefix)
    checkpoint, wanted = _import(prefix, variables, GivenTowers())
    moments = {
        ours: (
            _convert_variable(f"{name}/Adam", variables[f"{name}/Adam"], name, prefix),
            _convert_variable(f"{name}/Adam_1", variables[f"{name}/Adam_1"], name, prefix),
        )
        for name, ours in wanted.items()
        if {f"{name}/Adam", f"{name}/Adam_1"} <= variables.keys()
    }
    return StartPoint(checkpoint, moments, _count_steps(variables) if moments else 0)


def _count_steps(variables: Variables) -> int:
    """Count the optimiser steps: as the original counts them, else by the power of Adam's beta."""
    import math

    counters = [v for name, v in variables.items() if re.fullmatch(r"Variable(_\d+)?", name)]
    counted = max((int(v) for v in counters if v.shape == () and v.dtype.kind == "i"), default=0)
    power = variables.get("beta2_power")
    if counted > 0 or power is None or power.shape != () or not 1e-30 < float(power) < 1.0:
        return max(counted, 0)
    return max(0, round(math.log(float(power)) / math.log(0.999)) - 1)


def _read_variables(prefix: Path) -> Variables:
    """Read all variables, those of the optimiser included."""
    data_path = prefix.with_name(prefix.name + DATA_SUFFIX)
    try:
        return read_checkpoint(prefix.with_name(f"{prefix.name}.index"), data_path, slots=True)
    except (WeightsError, OSError) as error:
        raise CheckpointError(f"{prefix}: not a readable TensorFlow checkpoint ({error}); copy it again") from error


def _import(prefix: Path, variables: Variables, given: GivenTowers) -> tuple[Checkpoint, dict[str, str]]:
    """Make the checkpoint, and map variables to its tensors."""
    weights = {name: value for name, value in variables.items() if not _SLOT.match(name)}
    slots = variables.keys() - weights.keys()
    graph_linear = _read_graph(prefix.with_name(f"{prefix.name}.meta"))
    towers = original.recognise_towers(weights, slots, graph_linear, given, prefix)
    wanted = original.map_variables(weights, towers, prefix)
    tensors = {ours: _convert_variable(name, weights[name], name, prefix) for name, ours in wanted.items()}
    tensors |= _count_batches(towers)
    checkpoint = Checkpoint(
        model_config=_describe_model(towers, tensors),
        tensors=tensors,
        params={"imported_from": prefix.name, "format": "TensorFlow 1", "assumed": list(towers.assumed)},
        versions=read_versions(),
    )
    try:
        build_from_checkpoint(checkpoint)
    except CheckpointError as error:
        raise CheckpointError(f"{prefix}: its layers are not of the sizes of the original ({error})") from error
    return checkpoint, wanted


def _read_graph(path: Path) -> bool | None:
    """Read from the graph of a checkpoint whether its towers are linear; None if unknown.

    Dropout is named after what it follows: fc1 in a linear tower, its ReLU in others.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as graph:
            if len(graph) > MAX_GRAPH_BYTES:
                return None
            found = {linear for linear, name in ((True, b"fc1"), (False, b"relu1")) for side in (b"X", b"Y")
                     if graph.find(side + b"_network/" + name + b"_drop/") >= 0}  # fmt: skip
    except (OSError, ValueError):
        return None
    return found.pop() if len(found) == 1 else None


def find_prefix(path: Path) -> Path:
    """Find the prefix of a checkpoint's files from the user's path.

    Raises:
        CheckpointError: There is no checkpoint.
    """
    for folder in (path / "checkpoints", path, *([path.parent] if path.name == "checkpoint" else [])):
        if (folder / "checkpoint").is_file():
            return _read_latest(folder)
    prefix = path.with_name(re.sub(r"\.(index|meta|data-\d+-of-\d+)$", "", path.name))
    if prefix.with_name(f"{prefix.name}.index").is_file():
        if not prefix.with_name(prefix.name + DATA_SUFFIX).is_file():
            raise CheckpointError(f"{prefix.name}{DATA_SUFFIX} is missing in {prefix.parent}; copy it there too")
        return prefix
    if path.is_dir():
        raise CheckpointError(
            f"{path} has no file checkpoints/checkpoint or checkpoint, naming the latest; give one model.ckpt-N in it"
        )
    if prefix.is_file() and prefix.with_name(f"{prefix.name}.meta").is_file():
        raise CheckpointError(f"{prefix} has TensorFlow's format V1; save it again in V2 with tf.compat.v1.train.Saver")
    raise CheckpointError(f"there is no checkpoint {prefix}: {prefix.name}.index is missing; check the path")


def _read_latest(folder: Path) -> Path:
    """Read which prefix the file `checkpoint` names; only its name counts, as the folder may have been moved."""
    with (folder / "checkpoint").open("rb") as file:
        text = file.read(MAX_LISTING_BYTES).decode(errors="replace")
    match = re.search(r'^model_checkpoint_path:\s*"([^"]+)"', text, re.MULTILINE)
    if match is None:
        raise CheckpointError(f"{folder / 'checkpoint'} names no checkpoint; give the path of one model.ckpt-N")
    prefix = folder / match[1].replace("\\", "/").rsplit("/", 1)[-1][:MAX_NAME]
    if not prefix.with_name(f"{prefix.name}.index").is_file():
        raise CheckpointError(f"{folder / 'checkpoint'} names {prefix.name}, but {prefix.name}.index is missing there")
    return prefix


def _convert_variable(name: str, value: np.ndarray, layer: str, prefix: Path) -> Tensor:
    """Convert a variable to torch's layout: kernels [time, 1, in, out] to (out, in, time, 1), `W` to (out, in).

    `layer` is the variable that tells the layout; a slot of the optimiser has that of what it belongs to.
    """
    import numpy as np
    import torch

    kind = layer.rsplit("/", 1)[-1]
    rank = {"kernel": 4, "W": 2}.get(kind, 1)
    if value.ndim != rank or not np.issubdtype(value.dtype, np.floating):
        raise CheckpointError(f"{prefix}: {name} is {value.dtype} {value.shape}; {rank} axes of floats are expected")
    if not np.isfinite(value).all():
        raise CheckpointError(f"{prefix}: {name} holds NaN or infinity; take an earlier checkpoint")
    axes = {"kernel": (3, 2, 0, 1), "W": (1, 0)}.get(kind, (0,))
    return torch.from_numpy(np.array(value.transpose(axes), dtype=np.float32, order="C"))


def _count_batches(towers: Towers) -> dict[str, Tensor]:
    import torch

    norms = [ours for layer, ours in towers.layers().items() if original.parts_of(layer) is original.BATCH_NORM]
    return {f"{ours}.num_batches_tracked": torch.tensor(0) for ours in norms}


def _describe_model(towers: Towers, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Choose the arguments of `build_model`, without those that are as published."""
    is_vggish = towers.variant == "vggish"
    tower = "vggish" if is_vggish else "musicnn"  # without ReLU, those of 2017 are musicnn's without bn1
    widths = {
        side: int(tensors[f"{head}.fc.weight" if n == 1 else f"{head}.hidden.0.fc.weight"].shape[1])
        for side, head, n in (
            ("music", "music.head" if is_vggish else "music", towers.music_layers),
            ("video", "video", towers.video_layers),
        )
    }
    config: dict[str, Any] = {
        "music_tower": tower,
        "video_tower": tower,
        "music_shape": [N_PATCHES, widths["music"]] if is_vggish else [widths["music"]],
        "video_shape": [widths["video"]],
        "embedding_dim": int(tensors["video.fc.weight"].shape[0]),
        "dropout": DROPOUT,
        "standardise": False,
    }
    config |= {"music_layers": towers.music_layers} if towers.music_layers != MUSIC_LAYERS else {}
    config |= {"video_layers": towers.video_layers} if towers.video_layers != VIDEO_LAYERS else {}
    return {**config, "linear": True} if towers.linear else config
