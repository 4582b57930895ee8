"""Keep networks converted for OpenVINO next to the weights: the next start needs no framework and no conversion.

Converting EfficientNet-B5 takes tensorflow, Keras and some twenty seconds; reading it back takes a tenth of a second.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import shutil
from functools import cache
from importlib import metadata, resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vmnet_pipeline.storage.atomic import replace_folder
from vmnet_pipeline.storage.checksummed import check_files, describe_files, parse_json

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)
FOLDER = "converted"
MODEL_FILES = ("model.xml", "model.bin")
_FRAMEWORKS = ("openvino", "torch", "tensorflow", "keras")


class ConvertedModels:
    """The converted form of one network, below the weights folder; `identity` is what decides its numbers."""

    def __init__(self, weights_dir: str | Path, identity: dict[str, Any]) -> None:
        versions = {name: metadata.version(name) for name in _FRAMEWORKS}
        content = {"identity": identity, "versions": versions, "code": _hash_network_code()}
        key = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:24]
        self.folder = Path(weights_dir) / FOLDER / key

    def place_beside(self, name: str) -> Path:
        """A file about this network, next to its folder."""
        return self.folder.with_name(f"{self.folder.name}.{name}")

    def load_or_convert(self, openvino: Any, convert: Callable[[], Any]) -> Any:
        """Return the network as an OpenVINO model: read if it is here and intact, else converted and kept."""
        if (self.folder / "checksums.json").exists():
            try:
                return self._read(openvino)
            except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
                logger.warning("Converted network %s is damaged (%s); converting it again", self.folder, error)
                shutil.rmtree(self.folder, ignore_errors=True)
        model = convert()
        with contextlib.suppress(OSError, RuntimeError):  # a folder that cannot be written costs a conversion next time
            self._write(openvino, model)
        return model

    def _read(self, openvino: Any) -> Any:
        checksums = parse_json((self.folder / "checksums.json").read_text(encoding="utf-8"))
        check_files(self.folder, {name: checksums[name] for name in MODEL_FILES})
        return openvino.Core().read_model(str(self.folder / "model.xml"))

    def _write(self, openvino: Any, model: Any) -> None:
        with replace_folder(self.folder) as temporary:
            openvino.save_model(model, str(temporary / "model.xml"), compress_to_fp16=False)
            checksums = describe_files(temporary, MODEL_FILES)
            (temporary / "checksums.json").write_text(json.dumps(checksums), encoding="utf-8")


@cache
def _hash_network_code() -> str:
    """Digest the modules that define networks, so that a changed network is never taken from the store."""
    digest = hashlib.sha256()
    folder = resources.files("vmnet_pipeline.backends") / "networks"
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.name.endswith(".py"):
            digest.update(entry.read_bytes())
    return digest.hexdigest()
