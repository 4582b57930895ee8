"""Checkpoints of the reference (TensorFlow 1, `model.ckpt-N`) to checkpoints of this project. TensorFlow is not needed.

In the reference X is music and Y is video; a fully connected `W` is [in, out], a filter along time is [k, 1, 1, 1].
Variables that no embedding depends on (the domain classifier, `Y_network/fc2-4`, Adam's slots, the step) are ignored.

Source: variable names of github.com/MorrisXu-Driving/Video-Music_Cross-Modal_Retrival.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vmnet_pipeline.backends.tensorflow_checkpoint import read_checkpoint
from vmnet_pipeline.errors import CheckpointError, WeightsError
from vmnet_pipeline.models.checkpoints import Checkpoint, build_from_checkpoint, read_versions

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

N_PATCHES = 62
MAX_NAME = 200
DROPOUT = 0.1
DATA_SUFFIX = ".data-00000-of-00001"
BATCH_NORM = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
LINEAR = {"W": "weight", "b": "bias"}
CONVOLUTION = {"kernel": "weight", "bias": "bias"}
SHARED_LAYERS = {
    "Y_network/fc1": "video.hidden.0.fc",
    "Y_network/fc5": "video.fc",
}
# Layer of the reference to ours, by tower.
LAYERS: dict[str, dict[str, str]] = {
    "musicnn": {
        "X_network/fc1": "music.hidden.0.fc",
        "X_network/bn1/BN": "music.hidden.0.bn",
        "X_network/fc2": "music.hidden.1.fc",
        "X_network/fc5": "music.fc",
        "X_network/bn5/BN": "music.bn",
        "Y_network/bn1/BN": "video.hidden.0.bn",
        "Y_network/bn5/BN": "video.bn",
        **SHARED_LAYERS,
    },
    "vggish": {
        "X_network/time_fusion0/conv2d": "music.time_fusion.0.conv",
        "X_network/time_fusion0/batch_normalization/BN": "music.time_fusion.0.bn",
        "X_network/time_fusion2/conv2d": "music.time_fusion.1.conv",
        "X_network/time_fusion2/batch_normalization/BN": "music.time_fusion.1.bn",
        "X_network/fc1": "music.head.hidden.0.fc",
        "X_network/fc2": "music.head.hidden.1.fc",
        "X_network/fc5": "music.head.fc",
        "X_network/BN/BN": "music.head.bn",
        "Y_network/BN/BN": "video.bn",
        **SHARED_LAYERS,
    },
}
_IGNORED = re.compile(r"(?![XY]_network/)|Y_network/fc[234]/|.*/Adam(_\d+)?$")


def import_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint of the reference.

    Args:
        path: Prefix `.../model.ckpt-N`, one of its files, or a folder: the `summaries_dir` of a training or its
            `checkpoints`, whose latest checkpoint is taken.

    Returns:
        A checkpoint without fingerprints: nothing tells which features it was trained on, but their widths are known.

    Raises:
        CheckpointError: There is none, it is damaged, or its variables are not those of the reference; names them.
    """
    prefix = find_prefix(Path(path).expanduser())
    data_path = prefix.with_name(prefix.name + DATA_SUFFIX)
    try:
        variables = read_checkpoint(prefix.with_name(f"{prefix.name}.index"), data_path)
    except (WeightsError, OSError) as error:
        raise CheckpointError(f"{prefix}: not a readable TensorFlow checkpoint ({error}); copy it again") from error
    tower = _recognise_tower(variables, prefix)
    tensors = _convert_variables(variables, LAYERS[tower], prefix)
    checkpoint = Checkpoint(
        model_config=_describe_model(tower, tensors),
        tensors=tensors,
        params={"imported_from": prefix.name, "format": "TensorFlow 1"},
        versions=read_versions(),
    )
    try:
        build_from_checkpoint(checkpoint)
    except CheckpointError as error:
        raise CheckpointError(f"{prefix}: its layers are not of the sizes of the reference ({error})") from error
    return checkpoint


def find_prefix(path: Path) -> Path:
    """The prefix of a checkpoint's files from what a user gives.

    Raises:
        CheckpointError: Nothing is there.
    """
    for folder in (path / "checkpoints", path):
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
    raise CheckpointError(f"there is no checkpoint {prefix}: {prefix.name}.index is missing; check the path")


def _read_latest(folder: Path) -> Path:
    """What the file `checkpoint` names; only the name counts, as the folder may have been moved since."""
    text = (folder / "checkpoint").read_text(encoding="utf-8", errors="replace")
    match = re.search(r'^model_checkpoint_path:\s*"([^"]+)"', text, re.MULTILINE)
    if match is None:
        raise CheckpointError(f"{folder / 'checkpoint'} names no checkpoint; give the path of one model.ckpt-N")
    prefix = folder / match[1].replace("\\", "/").rsplit("/", 1)[-1][:MAX_NAME]
    if not prefix.with_name(f"{prefix.name}.index").is_file():
        raise CheckpointError(f"{folder / 'checkpoint'} names {prefix.name}, but {prefix.name}.index is not beside it")
    return prefix


def _recognise_tower(variables: dict[str, np.ndarray], prefix: Path) -> str:
    if not any(name.startswith(("X_network/", "Y_network/")) for name in variables):
        names = ", ".join(sorted(variables)[:5]) or "none"
        raise CheckpointError(f"{prefix} is no checkpoint of VM-NET: it has no X_network or Y_network, but {names}")
    scores = {tower: sum(_has_layer(variables, layer) for layer in layers) for tower, layers in LAYERS.items()}
    return max(scores, key=lambda tower: scores[tower])


def _has_layer(variables: dict[str, np.ndarray], layer: str) -> bool:
    return any(name.startswith(f"{layer}/") for name in variables)


def _convert_variables(variables: dict[str, np.ndarray], layers: dict[str, str], prefix: Path) -> dict[str, Tensor]:
    wanted = {
        f"{layer}/{part}": f"{ours}.{target}"
        for layer, ours in layers.items()
        for part, target in _parts_of(layer).items()
    }
    missing = sorted(wanted.keys() - variables.keys())
    odd = sorted(name for name in variables.keys() - wanted.keys() if not _IGNORED.match(name))
    if missing or odd:
        parts = [f"{label} {', '.join(names)}" for label, names in (("it lacks", missing), ("it has", odd)) if names]
        raise CheckpointError(
            f"{prefix} is not a checkpoint of the reference: {'; '.join(parts)}. Only its two networks can be imported."
        )
    tensors = {ours: _convert_variable(name, variables[name], prefix) for name, ours in wanted.items()}
    return tensors | _count_batches(layers)


def _parts_of(layer: str) -> dict[str, str]:
    if layer.endswith("/BN"):
        return BATCH_NORM
    return CONVOLUTION if layer.endswith("/conv2d") else LINEAR


def _convert_variable(name: str, value: np.ndarray, prefix: Path) -> Tensor:
    """A variable in torch's layout: kernels [time, 1, in, out] to (out, in, time, 1), `W` [in, out] to (out, in)."""
    import numpy as np
    import torch

    kind = name.rsplit("/", 1)[-1]
    rank = {"kernel": 4, "W": 2}.get(kind, 1)
    if value.ndim != rank or not np.issubdtype(value.dtype, np.floating):
        raise CheckpointError(f"{prefix}: {name} is {value.dtype} {value.shape}; {rank} axes of floats are expected")
    if not np.isfinite(value).all():
        raise CheckpointError(f"{prefix}: {name} holds NaN or infinity; take an earlier checkpoint")
    axes = {"kernel": (3, 2, 0, 1), "W": (1, 0)}.get(kind, (0,))
    return torch.from_numpy(np.array(value.transpose(axes), dtype=np.float32, order="C"))


def _count_batches(layers: dict[str, str]) -> dict[str, Tensor]:
    import torch

    return {f"{ours}.num_batches_tracked": torch.tensor(0) for layer, ours in layers.items() if layer.endswith("/BN")}


def _describe_model(tower: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
    head = "music.head" if tower == "vggish" else "music"
    width = int(tensors[f"{head}.hidden.0.fc.weight"].shape[1])
    return {
        "music_tower": tower,
        "video_tower": tower,
        "music_shape": [N_PATCHES, width] if tower == "vggish" else [width],
        "video_shape": [int(tensors["video.hidden.0.fc.weight"].shape[1])],
        "embedding_dim": int(tensors[f"{head}.fc.weight"].shape[0]),
        "dropout": DROPOUT,
        "standardise": False,
    }
