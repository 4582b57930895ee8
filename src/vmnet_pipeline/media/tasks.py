"""Send a call to a decoder process, which may open no file, with its file opened here."""

from __future__ import annotations

import os
import socket
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vmnet_pipeline.errors import MediaError
from vmnet_pipeline.media.container import open_regular_file
from vmnet_pipeline.media.handed import Handed, serve_pieces
from vmnet_pipeline.media.remote import open_remote_file
from vmnet_pipeline.storage.paths import is_remote

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

OWN_PACKAGE = __name__.partition(".")[0]


@dataclass(frozen=True, slots=True)
class Task:
    """A call to send: the pickled function and arguments, the file, and what its process must be.

    Attributes:
        content: Function, path and options, pickled.
        path: The file.
        package: Top-level package of the function.
        preload: Module that the process imports while it still has all rights; "" for none.
    """

    content: bytes
    path: str
    package: str
    preload: str = ""

    @property
    def reads_paths(self) -> bool:
        """Whether the function may open files by name, which those of this package do not."""
        return self.package != OWN_PACKAGE


def name_package(function: Callable[..., Any]) -> str:
    """Top-level package of a function, or of the object it is bound to."""
    owner = getattr(function, "__self__", None)
    module = function.__module__ if owner is None else type(owner).__module__
    return str(module).partition(".")[0]


def name_preload(function: Callable[..., Any]) -> str:
    """Module of this package that the object of a function must have imported by a process with all rights."""
    name = str(getattr(getattr(function, "__self__", None), "preload", ""))
    return name if name.partition(".")[0] == OWN_PACKAGE else ""


@contextmanager
def hand_over(task: Task) -> Iterator[Handed | None]:
    """Open the file of a task for the child; None for one that only a function of another package may open.

    Raises:
        MediaError: It cannot be opened.
    """
    try:
        file = open_remote_file(task.path) if is_remote(task.path) else open_regular_file(task.path)
    except MediaError:
        if not task.reads_paths:
            raise
        yield None
        return
    if not is_remote(task.path):
        with file:
            yield Handed(task.path, file.fileno(), None)
        return
    ours, theirs = socket.socketpair()
    size_bytes = file.seek(0, os.SEEK_END)
    threading.Thread(target=serve_pieces, args=(file, ours), name="media-pieces", daemon=True).start()
    with theirs:
        yield Handed(task.path, theirs.fileno(), size_bytes)
