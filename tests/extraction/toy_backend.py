"""A small backend whose media files are orders: a number to square, or what should go wrong, in which worker."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from pathlib import Path
from typing import ClassVar

import numpy as np

from vmnet_pipeline.errors import MediaError
from vmnet_pipeline.types import Fingerprint, MediaItem, PreparedItem


class ToyBackend:
    name: ClassVar[str] = "toy"
    modality: ClassVar[str] = "audio"

    def __init__(self, *, item_s: float = 0.0, size: int = 1, crash_on_load: bool = False):
        self.item_s, self.size, self.crash_on_load = item_s, size, crash_on_load

    def fingerprint(self):
        return Fingerprint("toy", {"size": self.size})

    def load(self):
        if self.crash_on_load:
            os.kill(os.getpid(), signal.SIGKILL)

    def prepare(self, path):
        order = Path(path).read_text()
        if order == "crash":
            os.kill(os.getpid(), signal.SIGKILL)
        if order == "hang":
            ctypes.PyDLL(None).sleep(3600)  # holds the GIL, as a decoder in an endless loop may
        if order == "sleep":
            time.sleep(3600)
        if order == "bad":
            raise MediaError("undecodable_audio", "no sound")
        if order == "poison":
            order = "nan"  # harmless to read, the end of the network
        time.sleep(self.item_s)
        return PreparedItem(np.full((1, self.size), float(order), np.float32), 1)

    def infer(self, inputs):
        if np.isnan(inputs).any():
            os.kill(os.getpid(), signal.SIGKILL)
        return inputs**2

    def finish(self, feature):
        return feature

    def pool(self, feature):
        return feature.mean(axis=0)


def make_items(folder: Path, orders: list[str]) -> list[MediaItem]:
    folder.mkdir(parents=True, exist_ok=True)
    items = []
    for number, order in enumerate(orders):
        path = folder / f"{number:03d}.txt"
        path.write_text(order)
        items.append(MediaItem(path.stem, str(path), f"sha256:{number}"))
    return items
