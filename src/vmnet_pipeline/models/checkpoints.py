"""Checkpoints: `model.safetensors` and `config.json` in one folder. No pickle; both files are checked when read."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import subprocess
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vmnet_pipeline.errors import CheckpointError, ParameterError, describe_validation
from vmnet_pipeline.evaluation.calibration import Calibration
from vmnet_pipeline.models.occlusion import Term
from vmnet_pipeline.params import SEQUENCE_TOWERS
from vmnet_pipeline.storage.atomic import remove_stale_temporaries, replace_atomically, write_text_atomically
from vmnet_pipeline.storage.checksummed import add_checksum, hash_file, parse_checksummed
from vmnet_pipeline.storage.paths import is_remote, local_copy
from vmnet_pipeline.storage.tensor_files import check_tensor_file
from vmnet_pipeline.types import FeaturePart, Fingerprint, Modality, Side

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from hashlib import _Hash as Hash
    from pathlib import Path

    from torch import Tensor

    from vmnet_pipeline.models.two_tower import VMNet

WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
MAX_CONFIG_BYTES = 16 * 2**20
REMEDY = "train again, or take the checkpoint folder from where it was made"
RECORDED_PACKAGES = ("vmnet-pipeline", "torch", "numpy", "safetensors", "kedro")

Size = Annotated[int, Field(ge=1, le=2**24)]
_COPIED = ("params", "best_epoch", "metrics", "git_revision", "versions")


@dataclass(frozen=True)
class Checkpoint:
    """A trained network with all that is needed to use it on the right features and to trace its origin.

    Attributes:
        model_config: Arguments of `models.factory.build_model`.
        tensors: Weights by name, on the CPU.
        fingerprints: Identity of the features it was trained on, by modality; empty for features of unknown origin.
        params: Training parameters.
        best_epoch: Epoch whose weights these are, with its validation `metrics`.
        git_revision: Commit of the project, or None outside a repository.
        versions: Version of each package that matters.
        parts: Backends of a joint vector, with width and weight, of the sides that have several.
        calibration: What its scores mean, from held-out pairs; None where that is not known.
        terms: Descriptors among its inputs, by side, to say why an answer fits; empty for other features.
    """

    model_config: dict[str, Any]
    tensors: dict[str, Tensor]
    fingerprints: dict[Modality, Fingerprint] = field(default_factory=dict)
    params: dict[str, Any] = field(default_factory=dict)
    best_epoch: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    git_revision: str | None = None
    versions: dict[str, str] = field(default_factory=dict)
    parts: Mapping[Side, tuple[FeaturePart, ...]] = field(default_factory=dict)
    calibration: Calibration | None = None
    terms: Mapping[Side, tuple[Term, ...]] = field(default_factory=dict)

    @property
    def part_weights(self) -> dict[str, dict[str, float | None]]:
        """Weight of each backend by side, where there are several."""
        return {side: {part.backend: part.weight for part in parts} for side, parts in self.parts.items()}


@dataclass(frozen=True)
class StartPoint:
    """Start of a training that continues another.

    Attributes:
        checkpoint: The network.
        moments: Adam's first and second moment of each weight, by name; empty if unknown.
        steps: Optimiser steps that led to it; 0 if the moments are unknown.
    """

    checkpoint: Checkpoint
    moments: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    steps: int = 0


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _ModelSchema(_Strict):
    music_tower: str
    video_tower: str
    music_shape: list[Size] = Field(min_length=1, max_length=4)
    video_shape: list[Size] = Field(min_length=1, max_length=4)
    embedding_dim: Size
    dropout: float = Field(ge=0.0, lt=1.0)
    standardise: bool
    n_members: int = Field(default=1, ge=1, le=64)
    music_layers: int | None = Field(default=None, ge=1, le=5)
    video_layers: int | None = Field(default=None, ge=1, le=5)
    linear: bool = False
    n_landmarks: int | None = Field(default=None, ge=1, le=2**20)
    ranks: list[Size] | None = Field(default=None, min_length=1, max_length=2**12)
    members: list[_ModelSchema] = Field(default_factory=list, max_length=64)


class _ConfigSchema(_Strict):
    format_version: Literal[1]
    weights_sha256: str = Field(pattern="^[0-9a-f]{64}$")
    network: _ModelSchema
    fingerprints: dict[Modality, Fingerprint]
    params: dict[str, Any]
    best_epoch: int = Field(ge=0)
    metrics: dict[str, float]
    git_revision: str | None
    versions: dict[str, str]
    parts: dict[Side, tuple[FeaturePart, ...]] = Field(default_factory=dict)
    calibration: Calibration | None = None
    terms: dict[Side, tuple[Term, ...]] = Field(default_factory=dict)
    checksum: str = ""


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint; each file appears whole, and the configuration, written last, names the weights it is for.

    A kill between the two files leaves a folder that `load_checkpoint` refuses, never one that it misreads.
    """
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.tensors.items()}
    with replace_atomically(folder / WEIGHTS_FILE, durable=True) as temporary:
        save_file(tensors, temporary)
        weights_sha256 = hash_file(temporary)
    content = {
        "format_version": 1,
        "weights_sha256": weights_sha256,
        "network": checkpoint.model_config,
        "fingerprints": {side: json.loads(item.to_json()) for side, item in checkpoint.fingerprints.items()},
        **{name: getattr(checkpoint, name) for name in _COPIED},
        **({"parts": list_parts(checkpoint.parts)} if checkpoint.parts else {}),
        **({"calibration": checkpoint.calibration.model_dump()} if checkpoint.calibration else {}),
        **({"terms": _list_terms(checkpoint.terms)} if checkpoint.terms else {}),
    }
    write_text_atomically(folder / CONFIG_FILE, add_checksum(content, indent=2), durable=True)
    if not is_remote(folder):
        remove_stale_temporaries(folder, folder / CONFIG_FILE)


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read and check a checkpoint.

    Raises:
        CheckpointError: A file is missing, damaged, hostile, or belongs to another checkpoint.
    """
    config = _read_config(folder / CONFIG_FILE)
    tensors = _read_tensors(folder / WEIGHTS_FILE, config.weights_sha256)
    network, copied = config.network.model_dump(exclude_unset=True), {name: getattr(config, name) for name in _COPIED}
    return Checkpoint(
        network,
        tensors,
        config.fingerprints,
        **copied,
        parts=config.parts,
        calibration=config.calibration,
        terms=config.terms,
    )


def read_model_config(folder: Path) -> dict[str, Any]:
    """Arguments of `models.factory.build_model` of a checkpoint, without its weights.

    Raises:
        CheckpointError: The configuration is missing or damaged.
    """
    return _read_config(folder / CONFIG_FILE).network.model_dump(exclude_unset=True)


def _list_terms(terms: Mapping[Side, Sequence[Term]]) -> dict[str, list[dict[str, Any]]]:
    return {side: [term.model_dump() for term in own] for side, own in terms.items()}


def list_parts(parts: Mapping[Side, Sequence[FeaturePart]]) -> dict[str, list[dict[str, Any]]]:
    """Parts of joint vectors as plain data."""
    return {side: [asdict(part) for part in own] for side, own in parts.items()}


def build_from_checkpoint(checkpoint: Checkpoint) -> VMNet:
    """Build the network of a checkpoint, in inference mode, on the CPU.

    Raises:
        CheckpointError: The tower is unknown, or the weights do not fit it.
    """
    import torch

    from vmnet_pipeline.models.factory import build_model

    try:
        # Without storage: sizes are compared with the weights at hand before anything is allocated.
        with torch.device("meta"):
            model = build_model(**checkpoint.model_config)
        expected = model.state_dict()
        for name, tensor in checkpoint.tensors.items():
            if name in expected and tensor.dtype != expected[name].dtype:
                raise CheckpointError(f"weights '{name}' are {tensor.dtype}, not {expected[name].dtype}; {REMEDY}")
        model.load_state_dict(checkpoint.tensors, assign=True)
    except ParameterError as error:
        raise CheckpointError(f"the checkpoint's network cannot be built: {error}") from error
    except (RuntimeError, TypeError, OverflowError) as error:
        raise CheckpointError(f"the checkpoint's weights do not fit its network ({error}); {REMEDY}") from error
    return model.eval()


def split_checkpoint(checkpoint: Checkpoint) -> list[Checkpoint]:
    """The members of a network of different kinds as checkpoints of their own; any other network as it is."""
    from vmnet_pipeline.models.ensemble import take_member

    configs = checkpoint.model_config.get("members")
    if not configs:
        return [checkpoint]
    return [
        replace(checkpoint, model_config=dict(config), tensors=take_member(checkpoint.tensors, number))
        for number, config in enumerate(configs)
    ]


def digest_checkpoint(checkpoint: Checkpoint) -> str:
    """64 hex digits that identify what the network computes: its layers and weights, whatever file they are in."""
    digest = hashlib.sha256(json.dumps(checkpoint.model_config, sort_keys=True).encode())
    add_tensors(digest, checkpoint.tensors)
    return digest.hexdigest()


def add_tensors(digest: Hash, tensors: Mapping[str, Tensor]) -> None:
    """Add names, types, shapes and values to a digest, whatever the order of the mapping."""
    import torch

    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)


def check_fingerprints(checkpoint: Checkpoint, fingerprints: Mapping[Modality, Fingerprint]) -> None:
    """Refuse features of another identity than those the checkpoint was trained on.

    Sides that the checkpoint has no fingerprint of (trained on feature files of unknown origin) are not compared.

    Raises:
        CheckpointError: A fingerprint differs; the message names the settings that do.
    """
    for side, found in fingerprints.items():
        expected = checkpoint.fingerprints.get(side)
        if expected is not None and expected.digest != found.digest:
            raise CheckpointError(
                f"the checkpoint was trained on other {side} features ({expected.describe_difference(found)}); "
                "extract features with the settings it was trained on, or train again on these"
            )


def check_shapes(checkpoint: Checkpoint, music_shape: Sequence[int], video_shape: Sequence[int]) -> None:
    """Refuse features of another shape per item than the checkpoint's network takes.

    Raises:
        CheckpointError: A shape differs; the message names both.
    """
    for side, found in (("music", music_shape), ("video", video_shape)):
        expected = tuple(checkpoint.model_config[f"{side}_shape"])
        if expected != tuple(found):
            raise CheckpointError(
                f"the checkpoint takes {side} features of shape {expected} per item ({side} tower "
                f"{checkpoint.model_config[f'{side}_tower']!r}), "
                f"but these have {tuple(found)}; use the features that it was trained on, or another checkpoint"
            )


def check_form(checkpoint: Checkpoint, music_steps: int | None, video_steps: int | None) -> None:
    """Refuse to pack features in another form than the checkpoint's towers take.

    A number of steps is that of the longest sequence to be packed; None stands for pooled features.

    Raises:
        CheckpointError: The form differs; the message names the parameters that give the right one.
    """
    config = checkpoint.model_config
    for side, found in (("music", music_steps), ("video", video_steps)):
        tower, name = config[f"{side}_tower"], f"train.model.{side}_tower"
        wanted = config[f"{side}_shape"][0] if tower in SEQUENCE_TOWERS else None
        if wanted != found:
            remedy = f"{name}={tower},train.model.max_steps={wanted}" if wanted else f"{name}={tower}"
            raise CheckpointError(
                f"the checkpoint's {side} tower {tower!r} takes {_describe_form(wanted)}, but this run packs "
                f"{_describe_form(found)}; pass --params {remedy}"
            )


def _describe_form(max_steps: int | None) -> str:
    return "pooled features" if max_steps is None else f"sequences of at most {max_steps} steps"


def read_git_revision(folder: Path) -> str | None:
    """Read the commit of `folder`, with `-dirty` if tracked files differ; None without git or repository."""
    revision = _run_git(folder, "rev-parse", "HEAD")
    if not revision:
        return None
    changes = _run_git(folder, "status", "--porcelain", "--untracked-files=no")
    return f"{revision}-dirty" if changes else revision


def read_versions(packages: tuple[str, ...] = RECORDED_PACKAGES) -> dict[str, str]:
    """Read the installed version of each package; those that are not installed are left out."""
    versions = {}
    for package in packages:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return versions


def _run_git(folder: Path, *arguments: str) -> str | None:
    command = ["git", "--no-optional-locks", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _name_others(path: Path) -> str:
    """What else the collection was trained with, where the place of a variant's network is empty."""
    folder = path.parent
    places = folder.parent.parent.glob(f"*/checkpoint/{path.name}") if folder.name == "checkpoint" else ()
    others = sorted(place.parent.parent.name for place in places)
    return f", or take what is there already by variant={' or variant='.join(others)}" if others else ""


def _read_config(path: Path) -> _ConfigSchema:
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise CheckpointError(f"{path} is larger than any checkpoint's configuration; {REMEDY}")
        text = path.read_bytes()
        config = _ConfigSchema.model_validate_json(text)
        parse_checksummed(text)
    except FileNotFoundError as error:
        raise CheckpointError(f"there is no checkpoint: {path} is missing; train first{_name_others(path)}") from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error}); {REMEDY}") from error
    except ValidationError as error:
        what = f"not a checkpoint's configuration: {describe_validation(error)}"
        raise CheckpointError(f"{path} is {what}; {REMEDY}") from error
    except ValueError as error:
        raise CheckpointError(f"{path} is damaged ({error}); {REMEDY}") from error
    return config


def _read_tensors(path: Path, sha256: str) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if hash_file(path) != sha256:
            raise CheckpointError(f"{path} is not the file that {CONFIG_FILE} was written for; {REMEDY}")
        with local_copy(path) as local:
            check_tensor_file(local)
            tensors: dict[str, Tensor] = load_file(local)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error}); {REMEDY}") from error
    except (SafetensorError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); {REMEDY}") from error
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise CheckpointError(f"{path}: weights '{name}' hold NaN or infinity; {REMEDY}")
    return tensors
