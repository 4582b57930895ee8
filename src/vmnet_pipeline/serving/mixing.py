"""Routes from a match to a finished video: the part of a track that fits, and rendering."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fastapi import Request  # noqa: TC002 - FastAPI evaluates it
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from vmnet_pipeline.params import MixParams
from vmnet_pipeline.search.recommendation import list_metadata
from vmnet_pipeline.serving import schemas
from vmnet_pipeline.serving.errors import RefusedError, refuse_media
from vmnet_pipeline.serving.hand_over import write_credits, write_timeline
from vmnet_pipeline.serving.media_files import MEDIA_ANSWERS, MediaResponse, open_below
from vmnet_pipeline.serving.renders import Order
from vmnet_pipeline.serving.uploads import SHORT_BYTES, read_json_body
from vmnet_pipeline.serving.worker import Task
from vmnet_pipeline.storage.names import normalise
from vmnet_pipeline.types import MODALITY_OF

if TYPE_CHECKING:
    from pathlib import Path

    from fastapi import FastAPI

    from vmnet_pipeline.serving.renders import RenderJob
    from vmnet_pipeline.serving.state import Service, State
    from vmnet_pipeline.types import Side

SUFFIXES = {"mov,mp4,m4a,3gp,3g2,mj2": ".mp4", "matroska,webm": ".mkv"}
"""Formats of the result by the name of the container of an upload; others become Matroska."""


def add_mixing(app: FastAPI, service: Service, errors: dict[int | str, dict[str, Any]], ask: Any) -> None:
    """Add the routes; `ask` lets a worker do a task."""

    @app.post(
        "/v1/passages",
        response_model=schemas.Passages,
        responses=errors,
        openapi_extra=schemas.describe_json_request(schemas.Mix),
    )
    async def find_passages(request: Request) -> JSONResponse:
        """Find the parts of a track that fit a video, with its beats and the cuts of the video."""
        wanted, state = schemas.read_query(schemas.Mix, await read_json_body(request, SHORT_BYTES)), service.state
        with ExitStack() as places:
            video, feature = _find_source(service, state, wanted.video, "video", places)
            music, music_feature = _find_source(service, state, wanted.music, "music", places)
            places.enter_context(state.pool.take_place())
            task = Task(
                path=str(video),
                music_path=str(music),
                max_duration_s=service.params.max_duration_s,
                features_dir=service.places.features,
                item_id=wanted.video.id or "",
                ids=(wanted.music.id or "",),
                feature=feature,
                music_feature=music_feature,
            )
            found = (await ask(task, service.params, state)).asked
        return JSONResponse(found)

    @app.post(
        "/v1/renders",
        response_model=schemas.Render,
        responses=errors,
        openapi_extra=schemas.describe_json_request(schemas.RenderOrder),
    )
    async def order_render(request: Request) -> JSONResponse:
        """Put a part of a track under a video, as a job; see `/v1/renders/{token}`."""
        wanted = schemas.read_query(schemas.RenderOrder, await read_json_body(request, SHORT_BYTES))
        with ExitStack() as places:
            order = _plan_order(service, wanted, places)
            token = service.renders.add(order, places.pop_all())
        return JSONResponse(_describe(service, token))

    @app.get("/v1/renders/{token}", response_model=schemas.Render, responses=errors)
    def show_render(token: str) -> JSONResponse:
        """Tell how far a job is."""
        return JSONResponse(_describe(service, token))

    @app.post("/v1/renders/{token}/cancel", response_model=schemas.Render, responses=errors)
    def cancel_render(token: str) -> JSONResponse:
        """End a job that waits or runs."""
        service.renders.cancel(token)
        return JSONResponse(_describe(service, token))

    @app.get("/v1/renders/{token}/video", response_class=Response, responses=errors | MEDIA_ANSWERS)
    def send_video(request: Request, token: str) -> MediaResponse:
        """Send the finished video, or one range of it (`Range`)."""
        job = _find_done(service, token)
        path = job.path
        if path is None or not path.is_file():
            raise RefusedError(404, "no_such_render", "This video is not here any more; render it again.")
        response = MediaResponse(path.open("rb", buffering=0), path.suffix, request.headers)
        response.headers["Content-Disposition"] = f'attachment; filename="soundtrack{path.suffix}"'
        return response

    @app.get("/v1/renders/{token}/timeline", response_class=Response, responses=errors)
    def send_timeline(token: str) -> PlainTextResponse:
        """Send the cut list for an editor (OpenTimelineIO); it names the files without their folders."""
        return _attach(write_timeline(_find_done(service, token)), "soundtrack.otio")

    @app.get("/v1/renders/{token}/credits", response_class=Response, responses=errors)
    def send_credits(token: str) -> PlainTextResponse:
        """Send the credits of the music as text."""
        return _attach(write_credits(_find_done(service, token)), "credits.txt")


def _attach(text: str, name: str) -> PlainTextResponse:
    return PlainTextResponse(text, headers={"Content-Disposition": f'attachment; filename="{name}"'})


def _find_source(service: Service, state: State, source: schemas.Source, side: Side, places: ExitStack) -> Any:
    """Path of one side of an item or upload, and the feature that is known of an upload; 404 if it is not there."""
    if source.upload is not None:
        upload = places.enter_context(service.kept.use(source.upload))
        if upload.facts[f"{MODALITY_OF[side]}_s"] is None:
            raise refuse_media(f"no_{MODALITY_OF[side]}_stream")
        known = upload.answers.get((side, state.gallery.checkpoint))
        return upload.path, known and known.feature
    path = state.gallery.files[side].get(normalise(source.id or ""))
    file = None if path is None else open_below(path, service.places.media_roots)
    if path is None or file is None:
        raise RefusedError(404, "no_media", "No media available for this item.")
    file.close()
    return path.resolve(), None


def _plan_order(service: Service, wanted: schemas.RenderOrder, places: ExitStack) -> Order:
    state = service.state
    video, _ = _find_source(service, state, wanted.video, "video", places)
    music, _ = _find_source(service, state, wanted.music, "music", places)
    hours = service.params.max_duration_s / 3600
    settings = MixParams.model_validate({"own_sound": wanted.own_sound, "max_hours": min(100.0, hours)})
    row = _find_row(state, wanted.music.id)
    order = Order(video, music, wanted.start_s, settings, _choose_suffix(service, wanted.video, video))
    return replace(
        order,
        name=wanted.name,
        music_name=str(row.get("title") or wanted.music.id or "music"),
        bars_s=tuple(sorted(wanted.bars_s)),
        row=row,
        markers={"beats_s": wanted.beats_s, "cuts_s": wanted.cuts_s},
    )


def _find_row(state: State, item_id: str | None) -> dict[str, Any]:
    music = state.gallery.sides["music"]
    position = music.positions.get(normalise(item_id or ""))
    return {} if position is None else list_metadata(music.index, [position])[0]


def _choose_suffix(service: Service, source: schemas.Source, path: Path) -> str:
    from vmnet_pipeline.soundtrack.muxing import FORMATS

    if source.upload is not None:
        with service.kept.use(source.upload) as upload:
            return SUFFIXES.get(upload.facts["container"], ".mkv")
    return path.suffix.lower() if path.suffix.lower() in FORMATS else ".mkv"


def _find_done(service: Service, token: str) -> RenderJob:
    job = service.renders.find(token)
    if job.state != "done":
        raise RefusedError(404, "not_rendered", "This video is not rendered yet, or could not be.")
    return job


def _describe(service: Service, token: str) -> dict[str, Any]:
    job = service.renders.find(token)
    report = job.report
    return {
        "render": token,
        "state": job.state,
        "progress": round(job.progress, 3),
        "before": service.renders.count_before(token),
        "message": job.message,
        "size_bytes": job.size,
        "loudness_lufs": report and round(report.loudness_lufs, 2),
        "warnings": [] if report is None else [text for text in report.warnings if "/" not in text],
    }
