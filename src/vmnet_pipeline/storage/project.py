"""Resolve paths against the project root, or against the folder in which a command was called.

Relative paths of the configuration are relative to the root, those on a command line to the current folder.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, TypeVar

from vmnet_pipeline.storage.paths import is_remote

PATH_NAMES = frozenset({
    "audio_dir", "cache_dir", "checkpoint", "data_root", "library", "media_dir", "metadata",
    "pairs_dir", "save_dir", "split_dir",
    "start_from", "summaries_dir", "test_csv_path", "test_data_dir", "train_csv_path", "train_data_dir", "video_dir",
    "weights_dir",
})  # fmt: skip
"""Parameters that are paths, also within others, as in `musicnn.weights_dir`."""

_Place = TypeVar("_Place", str, Path)
_callers: dict[Path, Path] = {}


def enter_project(root: Path, *given: dict[str, Any]) -> None:
    """Make the root of a project the current folder; adapt paths in `given`, parameters of the command line."""
    caller = Path.cwd()
    if caller == root.resolve():
        return
    _callers[root.resolve()] = caller
    for parameters in given:
        _relocate_parameters(parameters, caller, root)
    os.chdir(root)


def find_caller() -> Path:
    """The folder in which the running command was called."""
    return _callers.get(Path.cwd(), Path.cwd())


def relocate(place: _Place, caller: Path, root: Path) -> _Place:
    """A path relative to `caller` as one relative to `root`, or absolute where it leads out of that.

    A URL, an absolute path and one that starts with `~` stay as they are.
    """
    text = str(place)
    if not text or is_remote(text) or text.startswith("~") or Path(text).is_absolute():
        return place
    path = Path(os.path.normpath(caller / text))
    root = root.resolve()
    return type(place)(path.relative_to(root) if path.is_relative_to(root) else path)


def _relocate_parameters(given: dict[str, Any], caller: Path, root: Path) -> None:
    for name, value in given.items():
        if isinstance(value, dict):
            _relocate_parameters(value, caller, root)
        elif name.rpartition(".")[2] in PATH_NAMES and isinstance(value, str):
            given[name] = relocate(value, caller, root)
