"""Where the files of a model are, what identifies them, and whether they may be used. Nothing heavy, no network.

A model is a folder as `save_pretrained` writes it: `config.json`, weights as safetensors, the configuration of its
processor. One of the hub is kept in `WEIGHTS_DIR/encoders/OWNER--NAME/REVISION`, where `fetch` puts it, with a record.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vmnet_pipeline.backends.checksums import FileCheck, has_stamp, read_stamp, verify_file, write_stamp
from vmnet_pipeline.errors import ParameterError, WeightsError
from vmnet_pipeline.storage.checksummed import parse_json

FOLDER = "encoders"
RECORD = "vmnet.json"
REVISION = re.compile(r"[0-9a-f]{40}")
_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_NONCOMMERCIAL = re.compile(r"(^|[^a-z])nc([^a-z]|$)|non-?commercial|research[- ]only", re.IGNORECASE)
_MAX_JSON_BYTES = 16 << 20
_CONFIGURATIONS = (
    "config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
)


@dataclass(frozen=True, slots=True)
class Source:
    """Checked files of one model.

    Attributes:
        folder: Where they are.
        name: Id on the hub, or name of the folder.
        revision: Commit on the hub, "" for a folder without one.
        licence: As its publisher or the user names it; "unknown" if nobody does.
        sha256: Name of each file that decides an embedding -> hex digest.
    """

    folder: Path
    name: str
    revision: str
    licence: str
    sha256: dict[str, str]

    def identify(self) -> dict[str, Any]:
        """The part of a fingerprint that identifies the weights."""
        return {"name": self.name, "revision": self.revision, "licence": self.licence, "sha256": self.sha256}

    @property
    def model_type(self) -> str:
        """The kind of network that `config.json` names."""
        return str(read_json(self.folder / "config.json").get("model_type", ""))

    @property
    def needs_code(self) -> bool:
        """Whether the folder has Python code that its `config.json` asks to run."""
        return bool(read_json(self.folder / "config.json").get("auto_map")) and self.model_type == "mert_model"


def is_hub_id(model: str) -> bool:
    """Whether this is `OWNER/NAME`, and no folder of this machine."""
    return _ID.fullmatch(model) is not None and not Path(model).is_dir()


def locate(model: str, revision: str, weights_dir: str | Path) -> Path:
    """The folder in which a model of the hub is kept, there or not."""
    return Path(weights_dir) / FOLDER / model.replace("/", "--") / (revision or "main")


def find_source(
    model: str, revision: str, weights_dir: str | Path, *, licence: str = "", allow_noncommercial: bool = False
) -> Source:
    """Find a model and check that it can be used; never fetches.

    Args:
        model: A folder, its name below `WEIGHTS_DIR/encoders`, or an id of the hub.
        revision: Commit on the hub; of a folder whatever its user calls it.
        weights_dir: Folder of weights.
        licence: What the user knows of the licence; goes before what the folder says.
        allow_noncommercial: Whether weights that are not for commercial use are accepted.

    Raises:
        ParameterError: No model is named, or a revision that is none; or weights of this licence are not wanted.
        WeightsError: It is not here, or has no weights that are accepted.
    """
    folder, revision = _find_folder(model, revision, Path(weights_dir))
    record = read_json(folder / RECORD) if (folder / RECORD).is_file() else {}
    if record.get("revision") and revision and revision != record["revision"]:
        raise WeightsError(
            f"{folder} holds revision {record['revision']}, not {revision}; give the revision that is there, or fetch "
            f"the other: kedro weights fetch {model}@{revision}"
        )
    names = _list_weights(folder, model)
    found = licence or str(record.get("licence") or "") or _read_licence(folder)
    check_licence(model, found, allow_noncommercial)
    code = [path.name for path in folder.glob("*.py")]
    digests = {name: _hash(folder / name) for name in sorted((*names, *_list_configurations(folder), *code))}
    name = str(record.get("model") or "") or (model if is_hub_id(model) else folder.name)
    return Source(folder, name, revision or str(record.get("revision") or ""), found or "unknown", digests)


def _find_folder(model: str, revision: str, weights_dir: Path) -> tuple[Path, str]:
    if not model:
        raise ParameterError("model: name a folder with config.json and safetensors, or OWNER/NAME with a revision")
    for folder in (Path(model).expanduser(), weights_dir / FOLDER / model):
        if folder.is_dir() and (folder / "config.json").is_file():
            return folder, revision
    if Path(model).is_dir():
        raise WeightsError(f"{model}: has no config.json; give the folder of a model as `save_pretrained` writes it")
    if not is_hub_id(model):
        raise WeightsError(
            f"model {model!r} is neither a folder here, nor one below {weights_dir / FOLDER}, nor OWNER/NAME of the "
            "hub; correct it, or put or link the folder there"
        )
    if not REVISION.fullmatch(revision):
        raise ParameterError(
            f"revision {revision!r} of {model}: a model of the hub needs the 40 digits of a commit, so that it never "
            f"changes; its page lists them. Then: kedro weights fetch {model}@REVISION"
        )
    folder = locate(model, revision, weights_dir)
    if not (folder / "config.json").is_file():
        raise WeightsError(explain_missing(model, revision, folder))
    return folder, revision


def explain_missing(model: str, revision: str, folder: Path) -> str:
    """Say how to get a model that is not here."""
    return (
        f"weights {model!r}, revision {revision}, are not available; `kedro weights fetch {model}@{revision}` fetches "
        f"them, or put its config.json, *.safetensors and the files of its processor into {folder}"
    )


def _list_weights(folder: Path, model: str) -> list[str]:
    """Names of the weight files; only safetensors, which hold numbers and no code."""
    names = sorted(path.name for path in folder.glob("*.safetensors"))
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        wanted = read_json(index).get("weight_map")
        parts = {*map(str, wanted.values())} if isinstance(wanted, dict) else set()
        names = sorted(parts) if not parts - {*names} and parts else []
    elif "model.safetensors" in names:
        names = ["model.safetensors"]
    if names:
        return names
    others = sorted(path.name for path in folder.iterdir() if path.suffix in (".bin", ".pt", ".pth", ".ckpt", ".h5"))
    instead = f"only {', '.join(others[:3])}, which may hold code" if others else "none"
    raise WeightsError(
        f"model {model!r}: {folder} has no complete safetensors ({instead}); save it again with "
        "save_pretrained(..., safe_serialization=True), or take a revision that has them"
    )


def _list_configurations(folder: Path) -> list[str]:
    return [name for name in _CONFIGURATIONS if (folder / name).is_file()]


def check_licence(model: str, licence: str, allow_noncommercial: bool) -> None:
    """Refuse weights that are not for commercial use, unless they are wanted.

    Raises:
        ParameterError: They are not wanted.
    """
    if _NONCOMMERCIAL.search(licence) and not allow_noncommercial:
        raise ParameterError(
            f"model {model!r} is under {licence}, not for commercial use; if yours is not commercial, set "
            "allow_noncommercial: true, else choose another model"
        )


def _read_licence(folder: Path) -> str:
    """The licence that the head of the model card names."""
    card = folder / "README.md"
    if not card.is_file():
        return ""
    head = card.read_text(encoding="utf-8", errors="replace")[:65_536]
    found = re.search(r"^licen[sc]e(?:_name)?:\s*[\"']?([\w.+-]+)", head, re.MULTILINE) if head[:3] == "---" else None
    return found[1] if found else ""


def _hash(path: Path) -> str:
    if not has_stamp(path):
        digest = verify_file(path, FileCheck())
        if path.suffix == ".safetensors":  # the others are small, and a folder of the user's should stay as it is
            write_stamp(path, digest)
        return digest
    return read_stamp(path)


def read_json(path: Path) -> dict[str, Any]:
    """Content of a file of a model.

    Raises:
        WeightsError: It cannot be read.
    """
    try:
        if path.stat().st_size > _MAX_JSON_BYTES:
            raise ValueError("too large")
        content = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"{path}: cannot be read ({error}); fetch or save the model again") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path}: not a mapping; fetch or save the model again")
    return content
