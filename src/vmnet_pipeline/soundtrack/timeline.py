"""Hand a mix over to an editor: OpenTimelineIO, and EDL and FCPXML by its adapters."""

from __future__ import annotations

import re
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

from vmnet_pipeline.errors import ParameterError
from vmnet_pipeline.storage.atomic import write_text_atomically
from vmnet_pipeline.storage.paths import is_remote

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from vmnet_pipeline.soundtrack.render import RenderReport

FORMATS = {".otio": "otio_json", ".edl": "cmx_3600", ".fcpxml": "fcpx_xml"}
"""Suffix of a file to OpenTimelineIO's name of its adapter. Of them only .otio has times finer than a frame."""

SOUND_RATE_HZ = 48_000
# Frame rates that time code knows, as fractions.
_RATES = tuple((n, d) for n, d in ((24000, 1001), (24, 1), (25, 1), (30000, 1001), (30, 1), (48, 1), (50, 1),
                                   (60000, 1001), (60, 1)))  # fmt: skip
_EVENT = re.compile(r"^\d{3}(?=  )", re.MULTILINE)


def build_timeline(
    report: RenderReport,
    *,
    beats_s: Sequence[float] = (),
    cuts_s: Sequence[float] = (),
    frame_rate_hz: float | None = None,
    sound_rate_hz: float = SOUND_RATE_HZ,
) -> Any:
    """The mix as an `otio.schema.Timeline`: frames (V1), own sound (A1, unless it is muted) and music (A2).

    Args:
        report: Of `render`; its files are linked, not those that were written.
        beats_s: Times of beats, in seconds of the video; markers on the frames, as those of cuts.
        cuts_s: Times of cuts, in seconds of the video.
        frame_rate_hz: Rate of the frames; None: that of time code nearest to theirs.
        sound_rate_hz: Units of time per second on the tracks of sound.
    """
    import opentimelineio as otio

    frame_hz = frame_rate_hz or choose_frame_rate(report.frame_rate_hz)
    timeline = otio.schema.Timeline(Path(report.video).stem)
    timeline.metadata["vmnet_pipeline"] = _describe(report)
    frames = _make_clip(report.video, 0.0, report.duration_s, frame_hz)
    _mark(frames, "cut", cuts_s, otio.schema.MarkerColor.RED, frame_hz)
    _mark(frames, "beat", beats_s, otio.schema.MarkerColor.GREEN, frame_hz)
    tracks = [("V1", "Video", [frames])]
    if report.own_sound in ("keep", "duck"):
        own = _make_clip(report.video, 0.0, report.duration_s, sound_rate_hz)
        own.metadata["gain_db"] = report.own_gain_db
        tracks.append(("A1", "Audio", [own]))
    tracks.append(("A2", "Audio", _list_music(report, sound_rate_hz)))
    for name, kind, items in tracks:
        track = otio.schema.Track(name, kind=getattr(otio.schema.TrackKind, kind))
        track.extend(items)
        timeline.tracks.append(track)
    return timeline


def write_timeline(path: str | os.PathLike[str], report: RenderReport, **markers: Sequence[float]) -> None:
    """Write the mix for an editor, in the format of the suffix; `markers` as in `build_timeline`.

    Raises:
        ParameterError: The suffix is not one of `FORMATS`.
        StorageError, OSError: The file cannot be written.
    """
    import opentimelineio as otio

    writers = {".otio": _write_otio, ".edl": _write_edl, ".fcpxml": _write_fcpxml}
    writer = writers.get(Path(path).suffix.lower())
    if writer is None:
        raise ParameterError(f"{path}: give the time line one of the suffixes {', '.join(FORMATS)}")
    try:
        text = writer(report, markers)
    except otio.exceptions.OTIOError as error:
        raise ParameterError(f"{path}: this format cannot hold the time line ({error}); write .otio") from error
    write_text_atomically(Path(path), text)


def choose_frame_rate(rate_hz: float) -> float:
    """The rate of time code nearest to that of a video; 25 if it has none."""
    rates = [n / d for n, d in _RATES]
    return min(rates, key=lambda rate: abs(rate - rate_hz)) if rate_hz > 0 else 25.0


def _list_music(report: RenderReport, rate_hz: float) -> list[Any]:
    """Clips with a transition where passages overlap, and one at each end for a fade."""
    items: list[Any] = []
    overlaps = [passage.overlap_s for passage in report.passages[1:]] + [0.0]
    if report.fade_in_s:
        items.append(_make_transition("fade in", 0.0, report.fade_in_s, rate_hz))
    for passage, next_s in zip(report.passages, overlaps, strict=True):
        if passage.overlap_s:
            items.append(_make_transition("crossfade", passage.overlap_s / 2, passage.overlap_s / 2, rate_hz))
        start_s, end_s = passage.start_s + passage.overlap_s / 2, passage.end_s - next_s / 2
        clip = _make_clip(report.music, start_s, end_s - start_s, rate_hz)
        clip.metadata["gain_db"] = report.music_gain_db
        items.append(clip)
    if report.fade_out_s:
        items.append(_make_transition("fade out", report.fade_out_s, 0.0, rate_hz))
    return items


def _make_clip(path: str, start_s: float, duration_s: float, rate_hz: float) -> Any:
    import opentimelineio as otio

    address = path if is_remote(path) else Path(path).absolute().as_uri()
    available = _make_range(0.0, start_s + duration_s, rate_hz)
    reference = otio.schema.ExternalReference(address, available)
    return otio.schema.Clip(Path(path).name, reference, _make_range(start_s, duration_s, rate_hz))


def _make_range(start_s: float, duration_s: float, rate_hz: float) -> Any:
    """A range whose begin and end are the nearest units of time."""
    import opentimelineio as otio

    start, end = round(start_s * rate_hz), round((start_s + duration_s) * rate_hz)
    time = otio.opentime.RationalTime
    return otio.opentime.TimeRange(time(start, rate_hz), time(max(1, end - start), rate_hz))


def _make_transition(name: str, before_s: float, after_s: float, rate_hz: float) -> Any:
    import opentimelineio as otio

    before, after = (otio.opentime.RationalTime(round(seconds * rate_hz), rate_hz) for seconds in (before_s, after_s))
    return otio.schema.Transition(name, otio.schema.TransitionTypes.SMPTE_Dissolve, before, after)


def _mark(clip: Any, name: str, times_s: Sequence[float], color: str, rate_hz: float) -> None:
    import opentimelineio as otio

    for time_s in times_s:
        start = otio.opentime.RationalTime(round(time_s * rate_hz), rate_hz)
        place = otio.opentime.TimeRange(start, otio.opentime.RationalTime(0, rate_hz))
        clip.markers.append(otio.schema.Marker(name, place, color))


def _describe(report: RenderReport) -> dict[str, Any]:
    return {
        "rendered": report.output,
        "own_sound": report.own_sound,
        "speech_s": [list(span) for span in report.speech],
        "duck_depth_db": report.duck_depth_db,
        "music_gain_db": report.music_gain_db,
        "own_gain_db": report.own_gain_db,
        "loudness_lufs": report.loudness_lufs,
    }


def _write_otio(report: RenderReport, markers: dict[str, Any]) -> str:
    return _write_text(build_timeline(report, **markers), ".otio")


def _write_edl(report: RenderReport, markers: dict[str, Any]) -> str:
    """Pictures and music as one list; the adapter writes one track at a time, and neither fades nor crossfades."""
    frame_hz = choose_frame_rate(report.frame_rate_hz)
    texts = []
    for name in ("V1", "A2"):
        timeline = build_timeline(report, frame_rate_hz=frame_hz, sound_rate_hz=frame_hz, **markers)
        tracks = {track.name: track for track in timeline.tracks}
        _drop_transitions(tracks["A2"])
        del timeline.tracks[:]
        timeline.tracks.extend(tracks[other] for other in sorted(("V1", "A2"), key=lambda other: other != name))
        texts.append(_write_text(timeline, ".edl"))
    head, _, events = texts[0].partition("\n\n")
    events += texts[1].partition("\n\n")[2]
    numbers = iter(range(1, 1000))
    return f"{head}\n\n{_EVENT.sub(lambda _: f'{next(numbers):03d}', events)}"


def _write_fcpxml(report: RenderReport, markers: dict[str, Any]) -> str:
    """The adapter knows whole frame rates only. It would have `ffprobe` read the files, so it gets other addresses."""
    frame_hz = float(round(choose_frame_rate(report.frame_rate_hz)))
    timeline = build_timeline(report, frame_rate_hz=frame_hz, sound_rate_hz=frame_hz, **markers)
    addresses: dict[str, str] = {}
    for track in timeline.tracks:
        _drop_transitions(track)
        for clip in track:
            address = clip.media_reference.target_url
            clip.media_reference.target_url = addresses.setdefault(address, f"urn:vmnet:{uuid.uuid4()}")
    text = _write_text(timeline, ".fcpxml")
    for address, stand_in in addresses.items():
        text = text.replace(stand_in, escape(address, {'"': "&quot;"}))
    return text


def _drop_transitions(track: Any) -> None:
    import opentimelineio as otio

    for place in range(len(track) - 1, -1, -1):
        if isinstance(track[place], otio.schema.Transition):
            del track[place]


def _write_text(timeline: Any, suffix: str) -> str:
    import opentimelineio as otio

    return str(otio.adapters.write_to_string(timeline, FORMATS[suffix]))
