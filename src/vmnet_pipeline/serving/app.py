"""The FastAPI application: routes, error handlers and middleware."""

from __future__ import annotations

import asyncio
import logging
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

import vmnet_pipeline
from vmnet_pipeline.search.recommendation import target_side
from vmnet_pipeline.search.reranking import Reranking
from vmnet_pipeline.serving import schemas
from vmnet_pipeline.serving.auth import COOKIE, MAX_KEY_LENGTH, ApiKey
from vmnet_pipeline.serving.browsing import add_items, add_uploads
from vmnet_pipeline.serving.config import MEBIBYTE
from vmnet_pipeline.serving.errors import RefusedError, make_error_response, refuse_other_checkpoint
from vmnet_pipeline.serving.middleware import ServiceMiddleware
from vmnet_pipeline.serving.mixing import add_mixing
from vmnet_pipeline.serving.proxies import PREFIX
from vmnet_pipeline.serving.uploads import SHORT_BYTES, discard_body, is_json, is_short, read_json_body, receive_upload
from vmnet_pipeline.serving.worker import Answer, Task

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    import numpy as np

    from vmnet_pipeline.search.words import WordQuery
    from vmnet_pipeline.serving.config import ServeParams
    from vmnet_pipeline.serving.state import Service, State
    from vmnet_pipeline.types import Side

logger = logging.getLogger(__name__)

PAGE = Path(__file__).with_name("page")
OPTIONS = ("same_side", "rerank", "variety", "reasons", "one_per_group", "text", "text_weight")
"""Fields of a search that an upload gives in its URL; `top_k` and `filter` aside."""
MAX_SESSION_BYTES = 8 * MAX_KEY_LENGTH
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": schemas.ErrorBody, "description": text}
    for status, text in {
        400: "Malformed request or form, or unknown Host header.",
        401: "Missing or invalid API key.",
        403: "Cross-origin request.",
        404: "No such item.",
        408: "Request body timed out.",
        413: "Request body too large.",
        422: "Unprocessable input; see the message.",
        429: "Too many concurrent uploads; see `Retry-After`.",
        503: "The networks are not loaded, or the service is overloaded; see `Retry-After`.",
        504: "Processing timed out.",
        507: "Insufficient storage; see `Retry-After`.",
    }.items()
}


def make_app(service: Service, key: ApiKey | None = None) -> FastAPI:
    """Make the application of one collection; its lifespan starts and stops the workers. No key: open to everyone."""
    key = key or ApiKey(None)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        await asyncio.to_thread(service.close)

    app = FastAPI(
        title="vmnet_pipeline",
        version=vmnet_pipeline.__version__,
        description="Recommend music for videos, and videos for music.",
        lifespan=lifespan,
        docs_url=None,  # loads scripts from other hosts
        redoc_url=None,
        openapi_url=None,  # `show_document` adds the prefix of a proxy
        redirect_slashes=False,  # redirects would ignore the prefix of a proxy
    )
    _add_layers(app, service, key)
    _add_search(app, service)
    add_items(app, service, ERRORS)
    add_uploads(app, service, ERRORS, _embed)
    add_mixing(app, service, ERRORS, _embed)
    _add_operation(app, service, key)
    app.mount("/", StaticFiles(directory=PAGE, html=True), name="page")
    return app


def _add_layers(app: FastAPI, service: Service, key: ApiKey) -> None:
    params = service.params
    if params.allowed_origins:
        headers = ["content-type", "x-api-key", "authorization"]
        app.add_middleware(
            CORSMiddleware, allow_origins=params.allowed_origins, allow_methods=["GET", "POST"], allow_headers=headers
        )
    app.add_middleware(ServiceMiddleware, params=params, key=key, metrics=service.metrics)

    @app.exception_handler(RefusedError)
    async def answer_refused(request: Request, error: RefusedError) -> JSONResponse:
        service.metrics.refused.labels(error.code).inc()
        if error.status in (413, 429, 503, 507):
            await discard_body(request, 2 * params.max_upload_bytes)
        return make_error_response(error.status, error.code, str(error), error.retry_after_s)

    @app.exception_handler(HTTPException)
    async def answer_http(request: Request, error: HTTPException) -> JSONResponse:
        sentence = "Not found." if error.status_code == 404 else str(error.detail)
        response = make_error_response(error.status_code, "http", sentence)
        response.headers.update(error.headers or {})
        return response

    @app.exception_handler(RequestValidationError)
    async def answer_invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        return make_error_response(422, "bad_request", f"{'.'.join(map(str, first['loc'][1:]))}: {first['msg']}")


def _add_search(app: FastAPI, service: Service) -> None:
    search_docs = schemas.describe_request(schemas.Search, schemas.SEARCH_PARAMETERS)
    embed_docs = schemas.describe_request(schemas.Query, schemas.UPLOAD_PARAMETERS)

    @app.post(
        "/v1/recommendations", response_model=schemas.Recommendations, responses=ERRORS, openapi_extra=search_docs
    )
    async def recommend(request: Request) -> Response:
        """Recommend music for a video, videos for music, or similar items: by id, features, embedding, file, words."""
        state = service.state
        with ExitStack() as places:
            wanted, found = await _read(request, service, state, schemas.Search, places)
            side = target_side(wanted.query, same_side=wanted.same_side)
            direction = f"{wanted.query if found.embedding is not None else 'text'}_to_{side}"
            words = await _understand(wanted, side, service.params, state)
            search = partial(
                state.gallery.search,
                found.embedding,
                side,
                min(wanted.top_k, service.params.max_top_k),
                wanted.filters,
                exclude=[wanted.id] if wanted.id and wanted.same_side else [],
                reranking=_plan_reranking(service, state, side, found, wanted.rerank),
                variety=wanted.variety,
                direction=direction,
                one_per_group=wanted.one_per_group,
                words=words,
            )
            results, ranking = await asyncio.to_thread(search)
            if wanted.reasons and results and not wanted.same_side:
                task = Task(wanted.query, feature=found.feature, item_id=wanted.id or "", explains=True)
                task = replace(task, ids=tuple(item["id"] for item in results), features_dir=service.places.features)
                reasons = (await _embed(task, service.params, state)).reasons
                results = [item | {"reasons": text} for item, text in zip(results, reasons, strict=True)]
        about = {"remark": ranking.remark, "in_domain": ranking.in_domain, "warnings": list(found.warnings)}
        content = {"direction": direction, "version": state.gallery.version, "results": results}
        return JSONResponse(content | about)

    @app.post("/v1/embeddings", response_model=schemas.Embedding, responses=ERRORS, openapi_extra=embed_docs)
    async def embed(request: Request) -> Response:
        """Embed one item: by id, features or upload."""
        state = service.state
        with ExitStack() as places:
            wanted, found = await _read(request, service, state, schemas.Query, places)
        content = {"side": wanted.query, "checkpoint": state.gallery.checkpoint, "warnings": list(found.warnings)}
        return JSONResponse(content | {"embedding": cast("np.ndarray", found.embedding)[0].tolist()})


async def _understand(wanted: schemas.Search, side: Side, params: ServeParams, state: State) -> WordQuery | None:
    """Let a worker, which has the sentence encoder, read the words; the request holds its place in the pool."""
    if wanted.text is None:
        return None
    qualities = state.gallery.qualities.get(side)
    task = Task(side, text=wanted.text, columns=qualities.columns if qualities else ())
    answer = await _embed(task, params, state)
    return state.gallery.ask_words(side, wanted.text, answer, wanted.text_weight)


def _check_words(wanted: Any) -> bool:
    """Whether a query has words; 422 with options that go with no words."""
    if getattr(wanted, "text", None) is None:
        return False
    if wanted.rerank is not None:
        raise RefusedError(422, "cannot_rerank", "Results for words cannot be re-ranked: omit `rerank` or `text`.")
    return True


def _plan_reranking(
    service: Service, state: State, side: Side, found: Answer, weight: float | None
) -> Reranking | None:
    """Let a worker, which has the network, compare pieces; the request holds its place in the pool meanwhile."""
    if weight is None:
        return None
    loop = asyncio.get_running_loop()
    task = Task(side, pieces=found.pieces, features_dir=service.places.features)

    def align(ids: Sequence[str]) -> np.ndarray:
        asked = _embed(replace(task, ids=tuple(ids)), service.params, state)
        return cast("np.ndarray", asyncio.run_coroutine_threadsafe(asked, loop).result().agreements)

    return Reranking(align, weight)


async def _read(
    request: Request, service: Service, state: State, model: type[schemas.Query], places: ExitStack
) -> tuple[Any, Answer]:
    """Read a query: its parameters, and the (1, E) embedding of the item with warnings.

    Args:
        places: If a worker is needed, holds the place in the pool until the request is answered.
    """
    if not is_json(request):
        return await _read_upload(request, service, state, model, places)
    if not is_short(request):
        return await _read_long(request, service, state, model, places)
    wanted, features = await asyncio.to_thread(_parse, model, await read_json_body(request, SHORT_BYTES))
    has_words = _check_words(wanted)
    reranks, explains = getattr(wanted, "rerank", None) is not None, getattr(wanted, "reasons", False)
    if explains and wanted.id is None and wanted.upload is None and features is None:
        raise RefusedError(422, "no_reasons", "Send an id, a file or features: an embedding or words have no reasons.")
    if has_words and features is None and wanted.upload is None and not explains:
        places.enter_context(state.pool.take_place())
    if not wanted.has_item:
        return wanted, Answer()
    if wanted.embedding is not None:
        if reranks:
            raise RefusedError(
                422, "cannot_rerank", "Send an id, a file or features: an embedding cannot be re-ranked."
            )
        return wanted, Answer(embedding=state.gallery.check_vector(wanted.embedding, wanted.query))
    if wanted.upload is not None:
        return wanted, await _ask_upload(service, state, wanted, places, reranks=reranks, explains=explains)
    task = Task(wanted.query, features=features, pooled=wanted.pooled, with_pieces=reranks, explains=explains)
    if wanted.id is not None:
        vector = state.gallery.find_vector(wanted.id, wanted.query)
        if not reranks and not explains:
            return wanted, Answer(embedding=vector)
        places.enter_context(state.pool.take_place())
        if not reranks:
            return wanted, Answer(embedding=vector)
        task = replace(task, item_id=wanted.id, features_dir=service.places.features)
        return wanted, replace(await _embed(task, service.params, state), embedding=vector)
    places.enter_context(state.pool.take_place())
    return wanted, _check_one(await _embed(task, service.params, state))


async def _ask_upload(
    service: Service, state: State, wanted: Any, places: ExitStack, *, reranks: bool, explains: bool
) -> Answer:
    """Embed a kept upload, once for each side of it."""
    upload, key = places.enter_context(service.kept.use(wanted.upload)), (wanted.query, state.gallery.checkpoint)
    known = upload.answers.get(key)
    if known is not None and (known.pieces is not None or not reranks):
        if reranks or explains or getattr(wanted, "text", None) is not None:
            places.enter_context(state.pool.take_place())
        return known
    places.enter_context(state.pool.take_place())
    task = Task(wanted.query, path=str(upload.path), max_duration_s=service.params.max_duration_s)
    known = await _embed(replace(task, with_pieces=reranks, explains=True), service.params, state)
    upload.answers[key] = known
    return known


def _parse(model: type[schemas.Query], body: bytes) -> tuple[Any, np.ndarray | None]:
    wanted = schemas.read_query(model, body)
    return wanted, None if wanted.features is None else schemas.read_features(wanted.features)


async def _read_long(
    request: Request, service: Service, state: State, model: type[schemas.Query], places: ExitStack
) -> tuple[Any, Answer]:
    """Parsing a long body takes seconds and a hundred times its size, so a worker does it, which can be ended."""
    places.enter_context(state.pool.take_place())
    body = await read_json_body(request, int(service.params.max_json_mb * MEBIBYTE))
    answer = await _embed(Task(body=body, model=model.__name__), service.params, state)
    wanted = model.model_construct(**answer.asked)
    _check_words(wanted)
    return wanted, _check_one(answer)


def _check_one(answer: Answer) -> Answer:
    n = len(cast("np.ndarray", answer.embedding))
    if n != 1:
        raise RefusedError(422, "bad_features", f"Features of {n} items were sent; send those of one.")
    return answer


async def _read_upload(
    request: Request, service: Service, state: State, model: type[schemas.Query], places: ExitStack
) -> tuple[Any, Answer]:
    # `upload` replaces the file: a query needs an item.
    given: dict[str, Any] = {"id": "upload", "query": request.query_params.get("query", "video")}
    if model is schemas.Search:
        given |= {"top_k": request.query_params.get("top_k", 10), "filters": request.query_params.getlist("filter")}
        given |= {name: request.query_params[name] for name in OPTIONS if name in request.query_params}
    wanted, params = schemas.read_query(model, given).model_copy(update={"id": None}), service.params
    _check_words(wanted)
    places.enter_context(state.pool.take_place())
    async with receive_upload(request, service.uploads, params.max_upload_bytes) as (path, size):
        service.metrics.uploaded.inc(size)
        task = Task(wanted.query, path=str(path), max_duration_s=params.max_duration_s)
        reranks, explains = getattr(wanted, "rerank", None) is not None, getattr(wanted, "reasons", False)
        return wanted, await _embed(replace(task, with_pieces=reranks, explains=explains), params, state)


async def _embed(task: Task, params: ServeParams, state: State) -> Answer:
    if state.pool.digest != state.gallery.checkpoint:
        raise refuse_other_checkpoint()
    return await state.pool.ask(task, params.job_timeout_s)


def _add_operation(app: FastAPI, service: Service, key: ApiKey) -> None:
    @app.get("/healthz", include_in_schema=False)
    async def check_health() -> PlainTextResponse:
        return PlainTextResponse("ok\n")

    @app.get("/readyz", include_in_schema=False)
    def check_readiness() -> PlainTextResponse:
        fault = service.find_fault()
        return PlainTextResponse(f"not ready: {fault}\n", 503) if fault else PlainTextResponse("ready\n")

    @app.get("/openapi.json", include_in_schema=False)
    async def show_document(request: Request) -> JSONResponse:
        return JSONResponse({**app.openapi(), "servers": [{"url": request.scope.get(PREFIX) or "/"}]})

    @app.get("/docs", include_in_schema=False)
    def show_documentation() -> FileResponse:
        return FileResponse(PAGE / "docs.html")

    @app.get("/metrics", include_in_schema=False)
    def show_metrics() -> PlainTextResponse:
        return PlainTextResponse(service.metrics.write(), media_type="text/plain; version=0.0.4")

    @app.post("/v1/session", status_code=204, include_in_schema=False)
    async def open_session(request: Request) -> Response:
        session = schemas.read_query(schemas.Session, await read_json_body(request, MAX_SESSION_BYTES))
        if not await key.admits(session.key, request.scope):
            raise RefusedError(401, "no_key", "Invalid API key.")
        response = Response(status_code=204)
        path, is_https = request.scope.get(PREFIX) or "/", request.url.scheme == "https"
        response.set_cookie(
            COOKIE, key.make_cookie(), 30 * 24 * 3600, path=path, secure=is_https, httponly=True, samesite="strict"
        )
        return response
