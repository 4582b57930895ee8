"""`kedro render`: put music under a video."""

from __future__ import annotations

import json
import math
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vmnet_pipeline.commands.errors import report_errors
from vmnet_pipeline.commands.project import ProjectCommand
from vmnet_pipeline.commands.settings import choose_mix, read_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vmnet_pipeline.soundtrack.render import RenderReport


class _Time(click.ParamType):  # type: ignore[type-arg]
    """Seconds, or minutes and seconds as 1:23.5."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            seconds = 0.0
            for part in str(value).split(":"):
                seconds = 60 * seconds + float(part)
        except ValueError:
            seconds = math.nan
        if not 0 <= seconds < math.inf:
            self.fail(f"{value!r} is no time; write seconds (83.5) or minutes and seconds (1:23.5)", param, ctx)
        return seconds


TIME = _Time()

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command(name="render", cls=ProjectCommand, short_help="Put music under a video.")
@click.argument("video", type=click.Path(path_type=Path))
@click.argument("music", type=click.Path(path_type=Path))
@click.option("--start", "start_s", type=TIME, default=0.0, help="Where in the music to begin: 83.5 or 1:23.5.")
@click.option(
    "--output", type=_FILE, default=None, help="A .mp4, .mov, .mkv or .webm file.  [default: VIDEO-soundtrack]"
)
@choose_mix
@click.option("--bars", type=_FILE, default=None, help="Times in seconds at which bars of the music begin, one a line.")
@click.option(
    "--timeline",
    "timelines",
    type=_FILE,
    multiple=True,
    help="Also write .otio, .edl or .fcpxml for an editor; repeatable.",
)
@click.option("--credits", "credits_file", type=_FILE, default=None, help="Also write credits: .txt or .json.")
@click.option("--force", is_flag=True, help="Replace an existing file.")
@click.option("--set", "settings", multiple=True, help="A setting NAME=VALUE, see docs/parameters.md; repeatable.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
@report_errors()
def render_video(
    video: Path,
    music: Path,
    start_s: float,
    output: Path | None,
    own_sound: str | None,
    loudness: float | None,
    bars: Path | None,
    settings: tuple[str, ...],
    force: bool,
    timelines: tuple[Path, ...],
    credits_file: Path | None,
    as_json: bool,
) -> None:
    """Put MUSIC under VIDEO: the frames are copied untouched, next to a new sound.

    Speech in the own sound of VIDEO stays clear: the music is lowered under it.
    """
    from vmnet_pipeline.params import MixParams
    from vmnet_pipeline.soundtrack.render import choose_output, render

    params = read_settings(settings, MixParams, own_sound=own_sound, loudness_lufs=loudness)
    with show_progress("render") as progress:
        report = render(
            video,
            music,
            start_s=start_s,
            output=output or choose_output(video),
            settings=params,
            bars_s=read_times(bars) if bars else (),
            overwrite=force,
            progress=progress,
        )
    write_extras(report, timelines, credits_file)
    click.echo(json.dumps(asdict(report), ensure_ascii=False, indent=2) if as_json else describe_report(report))


@contextmanager
def show_progress(label: str) -> Iterator[Callable[[float], None]]:
    """A bar for work that tells of its progress as a share from 0 to 1."""
    from vmnet_pipeline.progress import track

    with track(label, 100) as bar:
        done = 0

        def tell(share: float) -> None:
            nonlocal done
            n = int(100 * share) - done
            if n > 0:
                done += n
                bar.add(n)

        yield tell


def read_times(path: Path) -> list[float]:
    """Times in seconds from a text file, one a line; text after them, as beat trackers write it, is left out.

    Raises:
        ParameterError: The file cannot be read, or a line begins with something else.
    """
    from vmnet_pipeline.errors import ParameterError

    try:
        lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
        return [float(words[0]) for words in lines if words]
    except (OSError, ValueError) as error:
        raise ParameterError(f"{path}: no list of times ({error}); write one time in seconds on each line") from error


def write_extras(report: RenderReport, timelines: tuple[Path, ...], credits_file: Path | None) -> None:
    """Write time lines and credits of a result.

    Raises:
        ParameterError: A suffix is not known.
    """
    from vmnet_pipeline.media.sandbox import Sandbox
    from vmnet_pipeline.params import LimitParams
    from vmnet_pipeline.soundtrack.credits import make_credit, write_credits
    from vmnet_pipeline.soundtrack.timeline import write_timeline

    for path in timelines:
        write_timeline(path, report)
    if credits_file is not None:
        with Sandbox(LimitParams.model_validate({})) as sandbox:
            credit = make_credit(report.music, report=report, sandbox=sandbox)
        write_credits(credits_file, [credit])


def describe_report(report: RenderReport) -> str:
    """What was done, for people."""
    first = report.passages[0]
    again = f", then {len(report.passages) - 1} more" if len(report.passages) > 1 else ""
    own = {
        "duck": f"kept, the music {report.duck_depth_db:g} dB lower under speech ({len(report.speech)} passages)",
        "keep": "kept",
        "mute": "left out",
        "none": "none",
    }[report.own_sound]
    lines = [
        f"Written: {report.output}",
        f"  frames     {report.video_codec}, copied; {report.duration_s:.2f} s",
        f"  music      {first.start_s:.2f} s to {first.end_s:.2f} s of {report.music}{again}",
        f"  own sound  {own}",
        f"  loudness   {report.loudness_lufs:.1f} LUFS, true peak {report.true_peak_dbtp:.1f} dBTP",
        *(f"Warning: {warning}" for warning in report.warnings),
    ]
    return "\n".join(lines)
