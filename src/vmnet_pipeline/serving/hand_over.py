"""What an editor and the credits of a video need of a render, without the paths of this machine."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from vmnet_pipeline.serving.renders import RenderJob
    from vmnet_pipeline.soundtrack.render import RenderReport


def write_timeline(job: RenderJob) -> str:
    """The time line as OpenTimelineIO; files are named, not placed."""
    import opentimelineio as otio

    from vmnet_pipeline.soundtrack.timeline import build_timeline

    report = _name_files(job)
    start_s = report.passages[0].start_s
    beats = [beat - start_s for beat in job.order.markers.get("beats_s", [])]
    timeline = build_timeline(
        report,
        beats_s=[beat for beat in beats if 0 <= beat <= report.duration_s],
        cuts_s=job.order.markers.get("cuts_s", []),
    )
    for track in timeline.tracks:
        for clip in track:
            if isinstance(clip, otio.schema.Clip):
                clip.media_reference.target_url = clip.name
    return str(otio.adapters.write_to_string(timeline, "otio_json"))


def write_credits(job: RenderJob) -> str:
    """The credits as text, from the columns of the library and the tags of the file."""
    from vmnet_pipeline.media.sandbox import Sandbox
    from vmnet_pipeline.params import LimitParams
    from vmnet_pipeline.soundtrack.credits import format_credits, make_credit

    with Sandbox(LimitParams.model_validate({})) as sandbox:
        credit = make_credit(job.order.music, row=job.order.row, report=_name_files(job), sandbox=sandbox)
    return format_credits([credit])


def _name_files(job: RenderJob) -> RenderReport:
    order, report = job.order, cast("RenderReport", job.report)
    suffix = job.path.suffix if job.path else order.suffix
    music = f"{order.music_name}{order.music.suffix}"
    return replace(report, output=f"soundtrack{suffix}", video=order.name, music=music)
