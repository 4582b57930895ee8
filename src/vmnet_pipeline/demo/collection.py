"""The demo collection: pairs of music and video that share a mood, in many file formats.

A folder is planned from its specification alone, then made file by file, so that neither the number of workers nor an
interruption changes a byte.
"""

from __future__ import annotations

import csv
import io
import json
import multiprocessing
import warnings
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from vmnet_pipeline.cores import count_cores
from vmnet_pipeline.demo.encode import find_encoding, write_media
from vmnet_pipeline.demo.frames import SceneStyle, draw_scene_style, render_frames
from vmnet_pipeline.demo.mood import blur_mood, draw_mood
from vmnet_pipeline.demo.music import SongStyle, draw_song_style, render_music
from vmnet_pipeline.demo.titles import name_clip, number_titles
from vmnet_pipeline.errors import IngestError, ParameterError
from vmnet_pipeline.storage.atomic import TEMPORARY_PREFIX, write_text_atomically
from vmnet_pipeline.storage.checksummed import parse_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

T = TypeVar("T")

RECIPE = 1  # raise it with every change that gives other bytes, so that an older folder is not continued

_TABLE = "media.csv"
_DONE_MARKER = "demo.json"
_OPEN_MARKER = "demo.unfinished.json"
_MAX_WORKERS = 8

# (video suffix, whether the audio is a separate file), in the shares of the collection.
_KINDS = (
    (".mp4", False), (".mp4", False), (".mp4", False), (".webm", False), (".webm", False), (".mkv", False),
    (".mp4", True), (".webm", True),
)  # fmt: skip
_AUDIO_SUFFIXES = (".mp3", ".ogg", ".flac", ".wav")
_FRAME_SIZES = ((320, 180), (320, 180), (240, 180), (256, 144))
_FRAME_RATES_HZ = (12, 15)


@dataclass(frozen=True, slots=True)
class DemoSpec:
    """Everything that determines a demo collection."""

    n_pairs: int = 200
    seed: int = 20170
    min_duration_s: float = 10.0
    max_duration_s: float = 15.0
    mood_noise: float = 0.05  # standard deviation of each side's own departure from the shared mood, per dimension

    def __post_init__(self) -> None:
        if self.n_pairs < 1:
            raise ParameterError(f"n_pairs={self.n_pairs} must be at least 1")
        if self.seed < 0:
            raise ParameterError(f"seed={self.seed} must not be negative")
        if not 0.0 < self.min_duration_s <= self.max_duration_s:
            raise ParameterError(
                f"min_duration_s={self.min_duration_s} and max_duration_s={self.max_duration_s} "
                "must be positive and in this order"
            )
        if not 0.0 <= self.mood_noise <= 1.0:
            raise ParameterError(f"mood_noise={self.mood_noise} must lie in [0, 1]")


@dataclass(frozen=True, slots=True)
class _PlannedPair:
    index: int
    group: int
    seed: int
    mood_noise: float
    duration_s: float
    video: str
    audio: str
    sample_rate_hz: int
    channels: int
    size: tuple[int, int]
    frame_rate_hz: int

    @property
    def id(self) -> str:
        return f"{self.index + 1:04d}"

    @property
    def files(self) -> tuple[str, ...]:
        return (self.video, self.audio) if self.audio else (self.video,)


def make_demo_collection(
    folder: Path,
    spec: DemoSpec | None = None,
    *,
    n_workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Make the demo collection, or continue an unfinished one; a finished one costs nothing.

    The folder gets `video/`, `audio/`, `media.csv` (columns id, video, audio, group, title; paths relative to the
    folder; no audio = that of the video) and, last of all, `demo.json`. Clips of one group are segments of one song
    over one scene.

    Args:
        spec: What to make; None = the default collection. The bytes depend on it alone.
        n_workers: Processes; None = one per available processor, at most 8. 1 uses no other process.
        progress: Called with (pairs done, pairs in all) after every pair.

    Returns:
        Path of `media.csv`.

    Raises:
        IngestError: The folder holds something else, or a demo of another specification.
    """
    spec = DemoSpec() if spec is None else spec
    folder = Path(folder)
    pairs = _plan_pairs(spec)
    state = _check_folder(folder, spec)
    if state is not None and not _find_missing(folder, pairs, state["files"]):
        _write_table(folder / _TABLE, pairs)
        return folder / _TABLE
    folder.mkdir(parents=True, exist_ok=True)
    _write_record(folder / _OPEN_MARKER, _describe_spec(spec))
    (folder / _DONE_MARKER).unlink(missing_ok=True)
    missing = _find_missing(folder, pairs, {} if state is None else state["files"])
    for n_done, _ in enumerate(_render_pairs(missing, folder, n_workers), start=len(pairs) - len(missing) + 1):
        if progress is not None:
            progress(n_done, len(pairs))
    _finish_folder(folder, spec, pairs)
    return folder / _TABLE


def _plan_pairs(spec: DemoSpec) -> list[_PlannedPair]:
    """Plan every pair from the specification alone."""
    rng = np.random.default_rng([spec.seed, 0])
    groups = _draw_groups(spec.n_pairs, rng)
    kinds = _deal(_KINDS, spec.n_pairs, rng)
    n_audio = sum(separate for _, separate in kinds)
    audio_suffixes = iter(_deal(_AUDIO_SUFFIXES, n_audio, rng))
    return [
        _plan_pair(spec, index, group, suffix, next(audio_suffixes) if separate else None, rng)
        for index, (group, (suffix, separate)) in enumerate(zip(groups, kinds, strict=True))
    ]


def _draw_groups(n_pairs: int, rng: np.random.Generator) -> list[int]:
    """Group number of every pair: 1 to 3 neighbours share one."""
    groups: list[int] = []
    while len(groups) < n_pairs:
        number = groups[-1] + 1 if groups else 0
        groups += [number] * int(rng.integers(1, 4))
    return groups[:n_pairs]


def _deal(cards: Sequence[T], n: int, rng: np.random.Generator) -> list[T]:
    """Draw n cards, each round in a new order, so that the shares hold for any n."""
    dealt: list[T] = []
    while len(dealt) < n:
        dealt += [cards[place] for place in rng.permutation(len(cards))]
    return dealt[:n]


def _plan_pair(
    spec: DemoSpec, index: int, group: int, suffix: str, audio_suffix: str | None, rng: np.random.Generator
) -> _PlannedPair:
    name = f"{index + 1:04d}"
    encoding = find_encoding(Path(name + (audio_suffix or suffix)))
    # Whole tenths of a second are whole numbers of samples at every sample rate in use.
    duration_s = round(float(rng.uniform(spec.min_duration_s, spec.max_duration_s)), 1)
    width, height = _FRAME_SIZES[int(rng.integers(len(_FRAME_SIZES)))]
    return _PlannedPair(
        index=index,
        group=group,
        seed=spec.seed,
        mood_noise=spec.mood_noise,
        duration_s=max(0.1, duration_s),
        video=f"video/{name}{suffix}",
        audio=f"audio/{name}{audio_suffix}" if audio_suffix else "",
        sample_rate_hz=int(rng.choice(encoding.sample_rates_hz)),
        channels=int(rng.choice(encoding.channels)),
        size=(width, height),
        frame_rate_hz=_FRAME_RATES_HZ[int(rng.integers(len(_FRAME_RATES_HZ)))],
    )


def _check_folder(folder: Path, spec: DemoSpec) -> dict[str, Any] | None:
    """Return the record of a finished demo, None for an empty folder or an unfinished demo.

    Raises:
        IngestError: See `make_demo_collection`.
    """
    if not folder.exists():
        return None
    remedy = "name an empty or new folder, or delete this one first"
    if not folder.is_dir():
        raise IngestError(f"{folder} is a file; {remedy}")
    marker = next((folder / name for name in (_DONE_MARKER, _OPEN_MARKER) if (folder / name).is_file()), None)
    if marker is None:
        if any(folder.iterdir()):
            raise IngestError(f"{folder} holds other files than a demo collection; {remedy}")
        return None
    try:
        record = dict(parse_json(marker.read_text(encoding="utf-8")))
    except (ValueError, TypeError):
        raise IngestError(f"{marker} is not a readable record of a demo collection; {remedy}") from None
    if record.get("spec") != _describe_spec(spec)["spec"] or record.get("recipe") != RECIPE:
        raise IngestError(f"{folder} holds a demo collection of another specification; {remedy}")
    return record if marker.name == _DONE_MARKER and isinstance(record.get("files"), dict) else None


def _find_missing(folder: Path, pairs: Iterable[_PlannedPair], sizes: dict[str, int]) -> list[_PlannedPair]:
    """Pairs with a file that is absent or has another size than recorded."""

    def is_there(name: str) -> bool:
        path = folder / name
        return path.is_file() and path.stat().st_size == sizes.get(name, path.stat().st_size)

    return [pair for pair in pairs if not all(is_there(name) for name in pair.files)]


def _render_pairs(pairs: Sequence[_PlannedPair], folder: Path, n_workers: int | None) -> Iterator[None]:
    """Render pairs in a pool of fresh processes, or here where one worker is enough; yields after each."""
    n_workers = min(_MAX_WORKERS, count_cores()) if n_workers is None else n_workers
    remaining = {pair.index: pair for pair in pairs}
    if min(n_workers, len(pairs)) > 1:
        context = multiprocessing.get_context("spawn")  # forked children inherit the thread state of torch
        try:
            with ProcessPoolExecutor(min(n_workers, len(pairs)), mp_context=context) as pool:
                jobs = {pool.submit(_render_pair, pair, folder): pair.index for pair in pairs}
                for job in as_completed(jobs):
                    job.result()
                    del remaining[jobs[job]]
                    yield
        except BrokenProcessPool:
            # Scripts without a `__main__` guard, or read from standard input, cannot start workers.
            warnings.warn("worker processes could not run; the demo is made in this process", stacklevel=3)
    for pair in remaining.values():
        _render_pair(pair, folder)
        yield


def _render_pair(pair: _PlannedPair, folder: Path) -> None:
    """Make the files of one pair: the song and scene belong to the group, the segment and shots to the pair."""
    song, scene = _draw_styles(pair)
    audio_rng, frame_rng = np.random.default_rng([pair.seed, 2, pair.index]).spawn(2)
    audio = render_music(song, audio_rng, pair.duration_s, pair.sample_rate_hz, pair.channels)
    frames = render_frames(scene, frame_rng, pair.duration_s, *pair.size, pair.frame_rate_hz)
    write_media(
        folder / pair.video,
        audio=None if pair.audio else audio,
        sample_rate_hz=pair.sample_rate_hz,
        frames=frames,
        size=pair.size,
        frame_rate_hz=pair.frame_rate_hz,
    )
    if pair.audio:
        write_media(folder / pair.audio, audio=audio, sample_rate_hz=pair.sample_rate_hz)


def _draw_styles(pair: _PlannedPair) -> tuple[SongStyle, SceneStyle]:
    rng = np.random.default_rng([pair.seed, 1, pair.group])
    mood = draw_mood(rng)
    song = draw_song_style(blur_mood(mood, rng, pair.mood_noise), rng)
    return song, draw_scene_style(blur_mood(mood, rng, pair.mood_noise), song.tempo_bpm, rng)


def _write_table(path: Path, pairs: Sequence[_PlannedPair]) -> None:
    """Write media.csv unless it is so already, as the one of an earlier version without titles is not."""
    titles = number_titles(name_clip(*_draw_styles(pair)) for pair in pairs)
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(("id", "video", "audio", "group", "title"))
    for pair, title in zip(pairs, titles, strict=True):
        writer.writerow((pair.id, pair.video, pair.audio, f"song{pair.group + 1:04d}", title))
    if not path.is_file() or path.read_text(encoding="utf-8") != table.getvalue():
        write_text_atomically(path, table.getvalue())


def _finish_folder(folder: Path, spec: DemoSpec, pairs: Sequence[_PlannedPair]) -> None:
    """Write the table, remove what an interruption left, and mark the folder as complete."""
    _write_table(folder / _TABLE, pairs)
    for leftover in folder.glob(f"*/{TEMPORARY_PREFIX}*"):
        leftover.unlink(missing_ok=True)
    sizes = {name: (folder / name).stat().st_size for pair in pairs for name in pair.files}
    _write_record(folder / _DONE_MARKER, _describe_spec(spec) | {"files": sizes})
    (folder / _OPEN_MARKER).unlink(missing_ok=True)


def _describe_spec(spec: DemoSpec) -> dict[str, Any]:
    return {"recipe": RECIPE, "spec": asdict(spec)}


def _write_record(path: Path, content: dict[str, Any]) -> None:
    write_text_atomically(path, json.dumps(content, indent=1, sort_keys=True) + "\n")
