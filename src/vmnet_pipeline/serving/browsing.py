"""Routes of what there is: items, their media and columns, the map, and uploads that are kept."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Query, Request
from fastapi.responses import JSONResponse, Response

from vmnet_pipeline.serving import schemas
from vmnet_pipeline.serving.library import list_columns, list_items
from vmnet_pipeline.serving.media_files import MEDIA_ANSWERS, MediaResponse
from vmnet_pipeline.serving.uploads import receive_upload
from vmnet_pipeline.serving.worker import Task
from vmnet_pipeline.types import SIDES, Side

if TYPE_CHECKING:
    from fastapi import FastAPI

    from vmnet_pipeline.serving.state import Service

MAX_TEXT_LENGTH = 200
Filters = Annotated[
    list[Annotated[str, Query(max_length=schemas.MAX_FILTER_LENGTH)]],
    Query(max_length=schemas.MAX_FILTERS, description="Condition on items, e.g. `duration<60`; repeatable."),
]


def add_items(app: FastAPI, service: Service, errors: dict[int | str, dict[str, Any]]) -> None:
    """Add the routes of the collection."""

    @app.get("/v1/items", response_model=schemas.Items, responses=errors)
    def show_items(
        side: Side = "music",
        text: Annotated[str, Query(max_length=MAX_TEXT_LENGTH, description="Words of id or metadata.")] = "",
        filter: Filters = [],  # noqa: B006 - the name in the URL; FastAPI copies it
        offset: Annotated[int, Query(ge=0, le=10**9)] = 0,
        limit: Annotated[int, Query(ge=1)] = 50,
    ) -> JSONResponse:
        """List items of one side."""
        limit = min(limit, service.params.max_top_k)
        return JSONResponse(list_items(service.state.gallery, side, text, filter, offset, limit))

    @app.get("/v1/columns", response_model=schemas.Columns, responses=errors)
    def show_columns() -> JSONResponse:
        """Describe the metadata of both sides: what filters can use."""
        return JSONResponse({side: list_columns(service.state.gallery.sides[side].index) for side in SIDES})

    @app.get("/v1/items/{item_id}", response_model=schemas.Item, responses=errors)
    def show_item(item_id: str) -> JSONResponse:
        """Describe one item."""
        return JSONResponse(service.state.gallery.describe_item(item_id))

    @app.get("/v1/items/{item_id}/media", response_class=Response, responses=errors | MEDIA_ANSWERS)
    def send_media(request: Request, item_id: str, side: Side = "music") -> MediaResponse:
        """Send the media file of one side of an item, or one range of it (`Range`)."""
        file, path = service.state.gallery.open_file(item_id, side, service.places.media_roots)
        return MediaResponse(file, path.suffix, request.headers)

    @app.get(
        "/v1/items/{item_id}/cover", response_class=Response, responses={**errors, 204: {"description": "It has none."}}
    )
    def send_cover(item_id: str) -> Response:
        """Send the cover of the music of an item as a small JPEG."""
        file, path = service.state.gallery.open_file(item_id, "music", service.places.media_roots)
        file.close()
        cover = service.covers.find(path.resolve())
        headers = {"Cache-Control": "private, max-age=3600"}
        return Response(cover, 200, headers, "image/jpeg") if cover else Response(None, 204)

    @app.get("/v1/map", responses=errors)
    def show_map() -> JSONResponse:
        """Project both sides of the gallery onto a plane, x and y from -1 to 1; also upload limits."""
        gallery, params = service.state.gallery, service.params
        counts = {side: len(gallery.sides[side].positions) for side in gallery.sides}
        limits = {"max_upload_mb": params.max_upload_mb, "max_duration_s": params.max_duration_s}
        limits |= {"max_top_k": params.max_top_k, "keep_upload_s": params.keep_upload_s}
        return JSONResponse({"points": gallery.map_points, "n_items": counts, "limits": limits})


def add_uploads(app: FastAPI, service: Service, errors: dict[int | str, dict[str, Any]], ask: Any) -> None:
    """Add the routes of uploads that are kept; `ask` lets a worker do a task."""

    @app.post(
        "/v1/uploads", response_model=schemas.Upload, responses=errors, openapi_extra=schemas.describe_file_request()
    )
    async def keep_upload(request: Request) -> JSONResponse:
        """Keep a media file for some minutes: `upload` in the response stands for it in searches."""
        state, params = service.state, service.params
        with ExitStack() as places:
            places.enter_context(state.pool.take_place())
            async with receive_upload(request, service.kept.folder, params.max_upload_bytes) as (path, size):
                service.metrics.uploaded.inc(size)
                task = Task(path=str(path), max_duration_s=params.max_duration_s, probes=True)
                facts = {"size_bytes": size, **(await ask(task, params, state)).asked}
                token = service.kept.add(path, size, facts)
        return JSONResponse({"upload": token, "keep_s": params.keep_upload_s, **facts})

    @app.get("/v1/uploads/{token}", response_model=schemas.Upload, responses=errors)
    def show_upload(token: str) -> JSONResponse:
        """Describe a kept upload."""
        with service.kept.use(token) as upload:
            return JSONResponse({"upload": token, "keep_s": service.params.keep_upload_s, **upload.facts})

    @app.get("/v1/uploads/{token}/media", response_class=Response, responses=errors | MEDIA_ANSWERS)
    def send_upload(request: Request, token: str) -> MediaResponse:
        """Send a kept upload, or one range of it (`Range`)."""
        with service.kept.use(token) as upload:
            suffix = ".mp4" if upload.facts["video_s"] is not None else ".mp3"
        return MediaResponse(service.kept.open(token), suffix, request.headers)
