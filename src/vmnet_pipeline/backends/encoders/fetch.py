"""Fetch a model of the hub, when a user asks for it; the only place of this package that the hub is asked from."""

from __future__ import annotations

import json
import shutil
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from vmnet_pipeline.backends.checksums import FileCheck, verify_file, write_stamp
from vmnet_pipeline.backends.encoders.presets import PRESETS, Preset
from vmnet_pipeline.backends.encoders.source import (
    FOLDER,
    RECORD,
    REVISION,
    check_licence,
    is_hub_id,
    locate,
    read_json,
)
from vmnet_pipeline.errors import ParameterError, WeightsError
from vmnet_pipeline.storage.atomic import replace_folder

WANTED = ("*.json", "model*.safetensors", "*.txt", "*.model", "*.py", "README.md", "LICENSE*")
"""Files in the first folder of a model that are taken; Python code among them never runs unless it is allowed."""


def read_name(name: str) -> tuple[str, str, str]:
    """Model, revision and licence of what `kedro weights fetch` is given: a preset, or OWNER/NAME, with @REVISION.

    Raises:
        ParameterError: It is neither, or no revision is known.
    """
    model, _, revision = name.partition("@")
    preset = find_preset(model)
    if preset is not None:
        model, revision = preset.model, revision or preset.revision
    if not is_hub_id(model):
        raise ParameterError(f"{name}: neither a preset ({', '.join(PRESETS)}) nor OWNER/NAME@REVISION of the hub")
    if not REVISION.fullmatch(revision):
        raise ParameterError(
            f"{name}: name a revision, the 40 digits of a commit, which the page of the model lists: {name}@REVISION"
        )
    return model, revision, preset.licence if preset else ""


def find_preset(name: str) -> Preset | None:
    """The preset of a name, also without its side."""
    return PRESETS.get(name) or PRESETS.get(f"{name}-audio")


def fetch_model(name: str, weights_dir: str | Path, *, allow_noncommercial: bool = False) -> Path:
    """Fetch a model and record what it is; one that is here is not fetched again.

    Returns:
        Its folder.

    Raises:
        ParameterError: The name is none, or the licence is not wanted.
        WeightsError: The hub has no such model or revision, cannot be reached, or sends something else.
    """
    model, revision, licence = read_name(name)
    folder = locate(model, revision, weights_dir)
    if (folder / RECORD).is_file():
        return folder
    if licence:
        check_licence(model, licence, allow_noncommercial)
    try:
        _fetch(model, revision, licence, folder, allow_noncommercial)
    except (ParameterError, WeightsError):
        raise
    except ImportError as error:
        raise ParameterError(
            f"encoders need more packages ({error}): pip install 'vmnet-pipeline[encoders]'"
        ) from error
    except Exception as error:  # of any kind: the library lets out errors of its own and of its client
        raise WeightsError(_explain(model, revision, folder, error)) from error
    return folder


def _fetch(model: str, revision: str, licence: str, folder: Path, allow_noncommercial: bool) -> None:
    from huggingface_hub import HfApi, hf_hub_download

    info = HfApi().model_info(model, revision=revision, files_metadata=True, timeout=30)
    if info.sha != revision:
        raise WeightsError(f"{model}: the hub answers with revision {info.sha}, not {revision}; try again")
    card = info.card_data.to_dict() if info.card_data else {}
    found = licence or str(card.get("license_name") or card.get("license") or "unknown")
    check_licence(model, found, allow_noncommercial)
    files = {file.rfilename: file for file in info.siblings or [] if _is_wanted(file.rfilename)}
    if not any(name.endswith(".safetensors") for name in files):
        raise WeightsError(
            f"{model}, revision {revision}, has no safetensors, which are the only weights that are read; take a "
            "revision that has them, or convert it and give its folder as `model`"
        )
    part = folder.with_name(f"{revision}.part")  # stays when this is interrupted, and is gone on with
    for filename in sorted(files):
        hf_hub_download(model, filename, revision=revision, local_dir=part)
    digests = {name: verify_file(part / name, _read_check(files[name]), label=f"{model}/{name}") for name in files}
    record = {"model": model, "revision": revision, "licence": found, "sha256": digests}
    with replace_folder(folder) as temporary:
        for filename in files:
            shutil.move(part / filename, temporary / filename)
        (temporary / RECORD).write_text(json.dumps(record, indent=1), encoding="utf-8")
    for filename, digest in digests.items():
        if filename.endswith(".safetensors"):
            write_stamp(folder / filename, digest)
    shutil.rmtree(part, ignore_errors=True)


def _is_wanted(filename: str) -> bool:
    return "/" not in filename and filename != RECORD and any(fnmatch(filename, pattern) for pattern in WANTED)


def _read_check(file: Any) -> FileCheck:
    """Checksum of a large file, as the hub states it."""
    large = getattr(file, "lfs", None)
    return FileCheck(size=large.size, sha256=large.sha256) if large else FileCheck()


def _explain(model: str, revision: str, folder: Path, error: Exception) -> str:
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if "RevisionNotFoundError" in kinds:
        return f"{model} has no revision {revision}; take one from the list of commits on its page"
    if "GatedRepoError" in kinds:
        return f"{model} is given out on request: accept its terms on its page, then set HF_TOKEN and fetch it again"
    if "RepositoryNotFoundError" in kinds:
        return f"the hub has no model {model}, or not for you; correct the name, or set HF_TOKEN"
    reason = str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
    return (
        f"weights {model!r}, revision {revision}, cannot be fetched ({type(error).__name__}: {reason}); try again, or "
        f"put its config.json, *.safetensors and the files of its processor into {folder}"
    )


def is_encoder(name: str) -> bool:
    """Whether a name of `kedro weights` is an encoder's: a preset, or OWNER/NAME, perhaps with a revision."""
    return "/" in name or "@" in name or find_preset(name) is not None


def find_fetched(weights_dir: str | Path, name: str = "") -> list[Path]:
    """Folders of the fetched models, or of those revisions of one that are here.

    Raises:
        WeightsError: That one is not here.
    """
    model, _, revision = name.partition("@")
    preset = find_preset(model)
    owner = (preset.model if preset else model).replace("/", "--") or "*"
    found = (Path(weights_dir) / FOLDER).glob(f"{owner}/{revision or '*'}/{RECORD}")
    folders = sorted(path.parent for path in found)
    if name and not folders:
        raise WeightsError(f"weights {name!r} are not available; fetch them: kedro weights fetch {name}")
    return folders


def verify_model(folder: Path) -> None:
    """Compare the files of a fetched model with its record.

    Raises:
        WeightsError: A file is missing, or is another one.
    """
    for name, digest in read_json(folder / RECORD).get("sha256", {}).items():
        if not (folder / name).is_file():
            raise WeightsError(f"{folder / name} is missing; remove {folder} and fetch the model again")
        verify_file(folder / name, FileCheck(sha256=str(digest)))


def list_models(weights_dir: str | Path) -> list[dict[str, Any]]:
    """One row per preset, and per other model below the folder of weights: name, presence, licence, revision, model."""
    rows, seen, here = [], set[Path](), find_fetched(weights_dir)
    for name, preset in PRESETS.items():
        folder = locate(preset.model, preset.revision, weights_dir) if preset.revision else None
        own = preset.model.replace("/", "--")
        present = [path for path in here if path.parent.name == own and folder in (None, path)]
        seen |= {*present}
        revision = preset.revision or (present[0].name if present else "")
        rows.append(_describe(name, bool(present), preset.licence, revision, preset.model))
    for path in (path for path in here if path not in seen):
        record = read_json(path / RECORD)
        named = (str(record.get(key, "")) for key in ("licence", "revision", "model"))
        rows.append(_describe(path.parent.name, True, *named))
    return rows


def _describe(name: str, present: bool, licence: str, revision: str, model: str) -> dict[str, Any]:
    return {"name": name, "present": present, "licence": licence, "revision": revision, "model": model}
