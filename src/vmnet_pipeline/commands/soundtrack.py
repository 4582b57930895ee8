"""`kedro soundtrack`: from a video and a folder of tracks to the video with music."""

from __future__ import annotations

import json
import logging
import textwrap
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vmnet_pipeline.commands.collection import INTERMEDIATE, OUTPUT, choose_weights
from vmnet_pipeline.commands.errors import report_errors
from vmnet_pipeline.commands.project import ProjectCommand
from vmnet_pipeline.commands.settings import choose_mix
from vmnet_pipeline.ingestion.ids import name_collection

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vmnet_pipeline.inference.embedder import Embedder
    from vmnet_pipeline.params import MixParams
    from vmnet_pipeline.passages.choice import Answer, Choice
    from vmnet_pipeline.search.libraries import Library

VARIANT = "library"


@click.command(name="soundtrack", cls=ProjectCommand, short_help="Put music of a folder under a video.")
@click.argument("video", type=click.Path(path_type=Path))
@click.option(
    "--library",
    "libraries",
    multiple=True,
    required=True,
    type=click.Path(path_type=Path),
    help="Folder with tracks, a track, or a media.csv; repeatable.",
)
@click.option("--checkpoint", type=click.Path(path_type=Path), default=None, help="Network that chooses the music.")
@click.option("--output", type=click.Path(path_type=Path), default=None, help="Result.  [default: VIDEO-soundtrack]")
@click.option("--force", is_flag=True, help="Replace a result that exists.")
@click.option("--rank", type=click.IntRange(1), default=1, show_default=True, help="Take the answer of this rank.")
@click.option("--scenes", is_flag=True, help="List a passage for each scene; writes no video.")
@click.option("--no-video", is_flag=True, help="Only list the answers.")
@click.option("--no-index", is_flag=True, help="Search the libraries as they were indexed; new files are not seen.")
@click.option("--filter", "filters", multiple=True, help="Only tracks like this: licence=CC-BY, 'duration<300'.")
@choose_mix
@click.option("--set", "settings", multiple=True, help="A setting of the mix, NAME=VALUE; repeatable.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
@choose_weights
@report_errors()
def make_soundtrack(
    video: Path,
    libraries: tuple[Path, ...],
    checkpoint: Path | None,
    weights_dir: Path,
    scenes: bool,
    no_video: bool,
    no_index: bool,
    filters: tuple[str, ...],
    as_json: bool,
    rank: int,
    **options: Any,
) -> None:
    """Choose music for VIDEO, and the part of it that fits, and write the video with that music.

    Tracks are indexed first, once: later runs read only new files. The pictures of VIDEO are copied, not made again.
    """
    from vmnet_pipeline.inference.embedder import Embedder
    from vmnet_pipeline.inference.libraries import find_network
    from vmnet_pipeline.passages.choice import choose_music

    tell = _say_nothing if as_json else click.echo
    started = time.monotonic()
    _check_files(video, libraries)
    results = None if scenes or no_video else plan_results(video, **options)
    folder = find_network(str(checkpoint or ""))[0]
    if not no_index:
        for place in libraries:
            index_library(place, folder, weights_dir, tell)
    embedder = Embedder.load(folder, weights_dir=weights_dir)
    opened = open_libraries(libraries, embedder)
    tell(f"Looks for music among {sum(len(library.index) for library in opened)} tracks ...")
    params = read_passage_params()
    choice = choose_music(embedder, opened, str(video), params, by_scene=scenes, filters=filters)
    if rank > len(choice.answers):
        raise click.UsageError(f"--rank {rank}: there are {len(choice.answers)} answers")
    chosen = choice.answers[rank - 1]
    tell(format_choice(video, choice, chosen))
    files = write_results(video, choice, chosen, embedder, results, tell) if results else {}
    if as_json:
        click.echo(format_json(video, choice, chosen, files))
    tell(f"Done in {time.monotonic() - started:.0f} s.")


def _say_nothing(text: str) -> None:
    """For programs."""


def _check_files(video: Path, libraries: Sequence[Path]) -> None:
    if not video.is_file():
        raise click.UsageError(f"there is no video {video}")
    for place in libraries:
        if not place.exists():
            raise click.UsageError(f"there is no library {place}")


def name_library_places(place: Path) -> tuple[Path, Path]:
    """Folder of the indexes and embeddings of a library, and its manifest."""
    name = name_collection("", library=str(place))
    return OUTPUT / name / VARIANT, INTERMEDIATE / name / "manifest.parquet"


def index_library(place: Path, checkpoint: Path, weights_dir: Path, tell: Any) -> None:
    """Index what is new in a library, as `kedro run --pipelines=ingest,extract,embed,index` does.

    Raises:
        VmnetError: It cannot be indexed.
    """
    from vmnet_pipeline.hooks.library import run_library

    started = time.monotonic()
    tell(f"Indexes the library {place}; the first time about a second per minute of music ...")
    params = {"library": place, "library_side": "music", "checkpoint": checkpoint, "weights_dir": weights_dir}
    with _quiet():
        run_library({name: str(value) for name, value in params.items()})
    tell(f"The library {place} is indexed ({time.monotonic() - started:.0f} s).")


@contextmanager
def _quiet() -> Iterator[None]:
    """Only warnings of a run that is a step of this command."""
    loggers = [logging.getLogger(name) for name in ("kedro", "vmnet_pipeline")]
    levels = [own.level for own in loggers]
    try:
        for own in loggers:
            own.setLevel(logging.WARNING)
        yield
    finally:
        for own, level in zip(loggers, levels, strict=True):
            own.setLevel(level)


def open_libraries(places: Sequence[Path], embedder: Embedder) -> list[Library]:
    """Open the music side of libraries.

    Raises:
        SearchIndexError: One is not indexed, or by another network, or cut in another way than the first.
    """
    from vmnet_pipeline.errors import SearchIndexError
    from vmnet_pipeline.search.libraries import REMEDY, open_library

    opened = [open_library(str(place), *name_library_places(place), "music", embedder.digest) for place in places]
    for library in opened[1:]:
        if library.pieces != opened[0].pieces:
            raise SearchIndexError(
                f"the library {library.place} is cut in other pieces than {opened[0].place}; {REMEDY}"
            )
    return opened


def read_passage_params() -> Any:
    """The parameters `passages` of the project in the current folder, or the defaults."""
    from kedro.config import OmegaConfigLoader
    from pydantic import ValidationError

    from vmnet_pipeline.errors import ParameterError, describe_validation
    from vmnet_pipeline.params import PassageParams
    from vmnet_pipeline.storage.configuration import find_conf

    loader = OmegaConfigLoader(str(find_conf()), base_env="base", default_run_env="local")
    try:
        return PassageParams.model_validate(loader["parameters"].get("passages") or {})
    except ValidationError as error:
        raise ParameterError(f"passages.{describe_validation(error, show_value=True)}") from error


@dataclass(frozen=True, slots=True)
class Results:
    """What a call writes.

    Attributes:
        target: The video with music.
        beside: Kind of a file beside it to its place: `timeline`, `credits`, `list`.
        mix: How it is mixed.
        force: Whether files may be replaced.
    """

    target: Path
    beside: dict[str, Path]
    mix: MixParams
    force: bool


def plan_results(
    video: Path,
    *,
    output: Path | None,
    force: bool,
    own_sound: str | None,
    loudness: float | None,
    settings: Sequence[str],
) -> Results:
    """Check before the work what a call is to write.

    Raises:
        ParameterError: A setting cannot be used.
        StorageError: A file exists.
    """
    from vmnet_pipeline.commands.settings import read_settings
    from vmnet_pipeline.errors import StorageError
    from vmnet_pipeline.params import MixParams
    from vmnet_pipeline.soundtrack.render import choose_output

    mix = read_settings(settings, MixParams, own_sound=own_sound, loudness_lufs=loudness)
    target = output or choose_output(video, video.parent)
    endings = {"timeline": ".otio", "credits": "-credits.txt", "list": "-choices.csv"}
    beside = {kind: target.with_name(f"{target.stem}{ending}") for kind, ending in endings.items()}
    existing = [path for path in (target, *beside.values()) if path.exists()]
    if existing and not force:
        raise StorageError(f"{existing[0]} exists; choose another --output, or allow to replace it (--force)")
    return Results(target, beside, mix, force)


def write_results(
    video: Path, choice: Choice, chosen: Answer, embedder: Embedder, results: Results, tell: Any
) -> dict[str, str]:
    """Write the video with music, and beside it what an editor and the end titles need.

    Returns:
        Kind of each file to its place: `video`, `timeline`, `credits`, `list`.

    Raises:
        VmnetError: A file cannot be read or written.
    """
    from vmnet_pipeline.commands.render import describe_report, show_progress
    from vmnet_pipeline.soundtrack.credits import make_credit, write_credits
    from vmnet_pipeline.soundtrack.lists import write_list
    from vmnet_pipeline.soundtrack.render import render
    from vmnet_pipeline.soundtrack.timeline import write_timeline

    tell(f"Writes {results.target} ...")
    with show_progress("render") as progress:
        report = render(
            video,
            chosen.hit.path,
            start_s=chosen.passages[0].start_s,
            output=results.target,
            settings=results.mix,
            bars_s=chosen.structure.bars_s.tolist(),
            overwrite=results.force,
            progress=progress,
        )
    tell(describe_report(report))
    beats, beside = _move_beats(chosen, report.passages), results.beside
    write_timeline(beside["timeline"], report, beats_s=beats, cuts_s=choice.video.cuts_s.tolist())
    credit = make_credit(chosen.hit.path, row=chosen.hit.metadata, report=report, sandbox=embedder.sandbox)
    write_credits(beside["credits"], [credit])
    write_list(beside["list"], [_list_answer(answer) for answer in choice.answers])
    tell(f"Beside it: {', '.join(path.name for path in beside.values())}.")
    return {"video": str(results.target), **{kind: str(path) for kind, path in beside.items()}}


def _move_beats(chosen: Answer, passages: Sequence[Any]) -> list[float]:
    """Beats of the track where they play, in seconds of the video."""
    beats = chosen.structure.beats_s
    return [
        float(beat - part.start_s + part.at_s)
        for part in passages
        for beat in beats[(beats >= part.start_s) & (beats < part.end_s)]
    ]


def _list_answer(answer: Answer) -> dict[str, Any]:
    passage = answer.passages[0]
    return {
        "title": answer.title,
        **{name: value for name, value in answer.hit.metadata.items() if name != "title"},
        "path": answer.hit.path,
        "start_s": round(passage.start_s, 3),
        "end_s": round(passage.end_s, 3),
        "score": round(answer.score, 4),
        **{name: round(value, 4) for name, value in asdict(passage.terms).items()},
    }


def format_choice(video: Path, choice: Choice, chosen: Answer) -> str:
    """What was found and why, for people."""
    from vmnet_pipeline.passages.choice import explain_passage

    n_cuts = len(choice.video.cuts_s)
    lines = [f"{video.name}: {format_time(choice.video.duration_s)}, {n_cuts} cuts."]
    lines += [f"Warning: {text}" for text in choice.warnings]
    for rank, answer in enumerate(choice.answers, start=1):
        parts = ", ".join(f"{format_time(p.start_s)} to {format_time(p.end_s)}" for p in answer.passages)
        mark = "*" if answer is chosen else " "
        lines.append(f"{mark} {rank}. {answer.title} [{parts}], score {answer.score:.3f}")
    for passage in chosen.passages:
        segment = f"{format_time(passage.video_start_s)} to {format_time(passage.video_end_s)} of the video"
        part = f"{format_time(passage.start_s)} to {format_time(passage.end_s)} of {chosen.title}"
        why = explain_passage(passage, chosen.structure)
        lines += textwrap.wrap(f"Chosen for {segment}: {part}. Why: {why}.", 100)
    lines += [f"Warning: {chosen.title}: {text}" for text in chosen.structure.warnings]
    return "\n".join(lines)


def format_time(seconds: float) -> str:
    """Minutes, seconds and tenths: `1:02.4`."""
    tenths = round(10 * seconds)
    return f"{tenths // 600}:{tenths % 600 // 10:02d}.{tenths % 10}"


def format_json(video: Path, choice: Choice, chosen: Answer, files: dict[str, str]) -> str:
    """The same for programs: `query`, `video`, `chosen`, `answers` with every term, `files`, `warnings`."""
    from vmnet_pipeline.passages.choice import describe_answer, describe_video

    content = {
        "query": str(video),
        "video": describe_video(choice.video),
        "chosen": choice.answers.index(chosen),
        "answers": [describe_answer(answer) for answer in choice.answers],
        "files": files,
        "warnings": list(choice.warnings),
    }
    return json.dumps(content, ensure_ascii=False, indent=2)
