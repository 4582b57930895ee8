"""Feed damaged and hostile files to the project's readers, in children that may neither fill the memory nor hang.

    python tests/torture/fuzzing.py FOLDER --cases 200 --seed 0 [--only checkpoint ...]     # a JSON line per target

This process imports everything and forks a child per target: the child makes valid files, reads them once, takes its
limits (address space, time per case) and then damages one file at a time. A reader gives a value or one of the
project's own errors; anything else, the death of the child too, is a failure, told with the seed that shows it.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import json
import logging
import os
import random
import re
import resource
import select
import shutil
import signal
import sys
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parent))

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HEADROOM_BYTES = 768 << 20
"""Address space beyond what reading the valid files took; files are of some kilobytes."""
CASE_TIMEOUT_S = 30.0
MAX_LOSSES = 5
"""Deaths of a child after which a target is given up."""
NASTY = (b"", b"\x00", b"\xff" * 8, b"\x7f" + b"\xff" * 7, b"\x80" * 12, b"\xff\xfe", b"\r\n", b'"', b"'", b",",
    b"\t", b"{", b"[" * 400,
         b"null", b"NaN", b"-1", b"1e999", b"-0", b"true", b"../../x", b"\xed\xa0\x80", "☃".encode(), b"(", b"O",
             b"PK\x03\x04",
         b"\x80\x04", b"!!python/object/apply:os.system", b"&a [*a]", b"__import__('os')")  # fmt: skip
NUMBERS = (
    b"0",
    b"-1",
    b"1",
    b"255",
    b"65536",
    b"2147483648",
    b"4294967296",
    b"9223372036854775807",
    b"99999999999999999999999",
    b"1e308",
)


@dataclass(frozen=True, slots=True)
class Target:
    """A reader and the files that it reads.

    Attributes:
        name: Of what is read.
        make: Writes valid files into a folder.
        read: Reads them; whatever it returns is good.
        files: Patterns of the files that are damaged.
        seal: Makes checksums fit the damaged files, as one who means harm would.
        draw: Gives a hypothesis strategy of whole contents of the first file, used for a part of the cases.
    """

    name: str
    make: Callable[[Path], None]
    read: Callable[[Path], Any]
    files: tuple[str, ...]
    seal: Callable[[Path], None] | None = None
    draw: Callable[[], Any] | None = None


def mutate(content: bytes, chance: random.Random) -> bytes:
    """Damage a file: one to four changes of kinds that parsers are known to stumble over."""
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        content = chance.choice(CHANGES)(content, chance)
    return content


def _flip(content: bytes, chance: random.Random) -> bytes:
    changed = bytearray(content or b"\0")
    for _ in range(chance.choice((1, 1, 2, 8))):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _cut(content: bytes, chance: random.Random) -> bytes:
    return content[: chance.randrange(len(content) + 1)]


def _insert(content: bytes, chance: random.Random) -> bytes:
    place = chance.randrange(len(content) + 1)
    return content[:place] + chance.choice(NASTY) + content[place:]


def _overwrite(content: bytes, chance: random.Random) -> bytes:
    place, what = chance.randrange(len(content) + 1), chance.choice(NASTY)
    return content[:place] + what + content[place + len(what) :]


def _repeat(content: bytes, chance: random.Random) -> bytes:
    start = chance.randrange(len(content) + 1)
    end = min(len(content), start + chance.randrange(1, 200))
    return content[:end] + content[start:end] * chance.choice((1, 2, 50)) + content[end:]


def _take_out(content: bytes, chance: random.Random) -> bytes:
    start = chance.randrange(len(content) + 1)
    return content[:start] + content[start + chance.randrange(1, 64) :]


def _change_number(content: bytes, chance: random.Random) -> bytes:
    """Another number, in half of the cases of the same length, so that what counts bytes still holds."""
    found = list(re.finditer(rb"\d+", content[: 1 << 16]))
    if not found:
        return _flip(content, chance)
    match, number = chance.choice(found), chance.choice(NUMBERS)
    if chance.random() < 0.5:
        number = (number * 20)[: len(match[0])]
    return content[: match.start()] + number + content[match.end() :]


def _change_word(content: bytes, chance: random.Random) -> bytes:
    """A quoted word or a value of JSON becomes something of another kind."""
    found = list(re.finditer(rb'"[^"\n]{0,80}"|\[[^\[\]]{0,80}\]|true|false|null', content[: 1 << 16]))
    if not found:
        return _insert(content, chance)
    match = chance.choice(found)
    what = chance.choice(
        (
            b"null",
            b"7",
            b'"x"',
            b"[]",
            b"{}",
            b'["a", 1]',
            b'{"a": [null]}',
            b"true",
            b'"F64"',
            b'"BF16"',
            b'"F8_E4M3"',
            b'"I64"',
        )
    )
    if chance.random() < 0.5 and len(what) <= len(match[0]):
        what = what.ljust(len(match[0]))
    return content[: match.start()] + what + content[match.end() :]


def _replace_all(content: bytes, chance: random.Random) -> bytes:
    return chance.choice(
        (
            b"",
            b"\0" * 64,
            chance.randbytes(200),
            b"[" * 100_000,
            b'{"a":' * 5_000,
            content + content,
            b"PK\x03\x04" + content,
        )
    )


CHANGES = (
    _flip,
    _flip,
    _cut,
    _insert,
    _overwrite,
    _repeat,
    _take_out,
    _change_number,
    _change_number,
    _change_word,
    _change_word,
    _replace_all,
)


# --- in the child


def run_cases(target: Target, folder: Path, cases: range, seed: int, say: Callable[[dict[str, Any]], None]) -> None:
    """Damage and read; says the number of each case before it, and what became of it afterwards."""
    valid, scratch = folder / "valid", folder / "scratch"
    if not valid.exists():
        valid.mkdir(parents=True)
        target.make(valid)
    shutil.rmtree(scratch, ignore_errors=True)
    shutil.copytree(valid, scratch)
    target.read(scratch)
    _take_limits()
    names = sorted(
        path.relative_to(valid) for pattern in target.files for path in valid.glob(pattern) if path.is_file()
    )
    drawn = _draw_contents(target, len(cases) // 3, seed) if target.draw else []
    for case in cases:
        chance = random.Random(f"{target.name} {seed} {case}")
        say({"case": case})
        name = names[0] if case < len(drawn) else chance.choice(names)
        content = drawn[case] if case < len(drawn) else mutate((valid / name).read_bytes(), chance)
        (scratch / name).write_bytes(content)
        if target.seal:
            target.seal(scratch)
        say(try_reading(target, scratch))
        _restore(valid, scratch, names if target.seal else [name])


def try_reading(target: Target, scratch: Path) -> dict[str, Any]:
    """How reading ended: `value`, the name of one of the project's errors, or a failure."""
    from vmnet_pipeline.errors import VmnetError

    try:
        target.read(scratch)
    except VmnetError as error:
        if getattr(error, "status", 0) >= 500:
            return {"failure": f"answered with {getattr(error, 'status', 0)}: {error}"[:300]}
        return {"ended": type(error).__name__}
    except BaseException as error:
        place = error.__traceback__
        while place is not None and place.tb_next is not None:
            place = place.tb_next
        where = f"{Path(place.tb_frame.f_code.co_filename).name}:{place.tb_lineno}" if place else ""
        return {"failure": f"{type(error).__name__} at {where}: {error}"[:300]}
    return {"ended": "value"}


def _restore(valid: Path, scratch: Path, names: list[Path]) -> None:
    for name in names:
        (scratch / name).write_bytes((valid / name).read_bytes())


def _take_limits() -> None:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    limit = pages * resource.getpagesize() + HEADROOM_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _draw_contents(target: Target, n: int, seed: int) -> list[bytes]:
    import hypothesis

    contents: list[bytes] = []
    assert target.draw is not None

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=max(1, n), database=None, deadline=None, suppress_health_check=list(hypothesis.HealthCheck)
    )
    @hypothesis.given(target.draw())
    def take(content: bytes) -> None:
        contents.append(content)

    take()
    return contents[:n]


# --- in the process that forks


def fuzz(target: Target, folder: Path, n_cases: int, seed: int) -> dict[str, Any]:
    """All cases of one target, in as many children as it takes."""
    ended: Counter[str] = Counter()
    failures: list[str] = []
    tried = n_losses = 0
    while tried < n_cases and n_losses <= MAX_LOSSES:
        case = None
        with _fork(target, folder, range(tried, n_cases), seed) as (pid, lines):
            for line in lines:
                if "case" in line:
                    case = line["case"]
                    continue
                ended.update([line["ended"]] if "ended" in line else [])
                failures += [f"seed {seed} case {case}: {line['failure']}"] if "failure" in line else []
                case, tried = None, tried + 1
            how = _wait(pid)
        if tried < n_cases:
            n_losses += 1
            failures.append(f"seed {seed} case {case}: the reading process ended ({how})")
            tried = (tried if case is None else case) + 1
    return {"what": target.name, "tried": min(tried, n_cases), "ended": dict(ended), "failures": failures}


@contextlib.contextmanager
def _fork(target: Target, folder: Path, cases: range, seed: int) -> Iterator[tuple[int, Iterator[dict[str, Any]]]]:
    source, sink = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(source)
        status = 1
        try:
            _be_child(target, folder, cases, seed, sink)
            status = 0
        except BaseException as error:
            print(f"{target.name}: {type(error).__name__}: {error}", file=sys.stderr)
        finally:
            os._exit(status)
    os.close(sink)
    try:
        yield pid, _read_lines(source, pid)
    finally:
        os.close(source)


def _be_child(target: Target, folder: Path, cases: range, seed: int, sink: int) -> None:
    warnings.simplefilter("ignore")
    logging.disable()
    faulthandler.disable()  # a death is told by the parent
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    with os.fdopen(sink, "w") as stream:

        def say(line: dict[str, Any]) -> None:
            stream.write(json.dumps(line) + "\n")
            stream.flush()

        run_cases(target, folder, cases, seed, say)


def _read_lines(source: int, pid: int) -> Iterator[dict[str, Any]]:
    rest = b""
    while True:
        ready, _, _ = select.select([source], [], [], CASE_TIMEOUT_S)
        if not ready:
            os.kill(pid, signal.SIGKILL)
            return
        piece = os.read(source, 65_536)
        if not piece:
            return
        *lines, rest = (rest + piece).split(b"\n")
        yield from map(json.loads, lines)


def _wait(pid: int) -> str:
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return "hung" if number == signal.SIGKILL else signal.Signals(number).name
    return f"exit code {os.WEXITSTATUS(status)}"


def main() -> int:
    from parser_targets import TARGETS, import_all

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", default=[])
    arguments = parser.parse_args()
    import_all()
    for number, target in enumerate(TARGETS):
        if not arguments.only or target.name in arguments.only:
            result = fuzz(target, arguments.folder / str(number), arguments.cases, arguments.seed)
            print(json.dumps(result), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
