"""Worker process of the service: load the networks once, then embed files and features."""

from __future__ import annotations

import os
import signal
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from vmnet_pipeline.errors import (
    EmbedderError,
    FeatureStoreError,
    MediaError,
    ParameterError,
    SandboxError,
    VmnetError,
    WeightsError,
)
from vmnet_pipeline.serving.errors import RefusedError, describe_failure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.connection import Connection

    import numpy as np

    from vmnet_pipeline.features.joint import JointStore
    from vmnet_pipeline.features.store import FeatureStore
    from vmnet_pipeline.inference.embedder import Embedder
    from vmnet_pipeline.media.sandbox import Sandbox
    from vmnet_pipeline.types import ItemFeature, Side
    from vmnet_pipeline.words.understanding import Listener, Wishes

NICENESS = 5  # searches take milliseconds and go before the embedding of uploads, which takes seconds


@dataclass(frozen=True, slots=True)
class Task:
    """A file, features, or a request body with features to embed; or stored items to compare with pieces."""

    side: Side = "video"
    path: str | None = None
    features: np.ndarray | None = None  # of one item, float32
    pooled: bool = False
    max_duration_s: float = float("inf")
    body: bytes = b""  # JSON with the side and the features
    model: str = ""  # name of the body's class in `schemas`
    with_pieces: bool = False  # whether the pieces of the item are embedded too, for re-ranking
    item_id: str = ""  # item of the collection whose pieces are embedded
    pieces: np.ndarray | None = None  # (n, E) embedded pieces of a query
    ids: tuple[str, ...] = ()  # items of the collection to compare with these pieces
    features_dir: Path | None = None
    probes: bool = False  # which sides the file has, and their lengths, instead of an embedding
    explains: bool = False  # with ids: why they are answers to the item or to `feature`; without: keep the feature
    feature: ItemFeature | None = None  # of a query, as the backend stores it
    text: str | None = None  # words to understand; no item is embedded then
    columns: tuple[str, ...] = ()  # with text: what is known of the items
    music_path: str | None = None  # with path, which is a video then: find the passages of this track that fit it
    music_feature: ItemFeature | None = None  # of that track, likewise


@dataclass(frozen=True, slots=True)
class Answer:
    """Result of a task."""

    embedding: np.ndarray | None = None  # (1, E) float32; None if there is an error, or the task was about pieces only
    pieces: np.ndarray | None = None  # (n, E) float32 embedded pieces, if they were asked for
    feature: ItemFeature | None = None  # of an item that is to be explained
    reasons: tuple[str, ...] = ()  # why each item of a task is an answer; empty text where that is not known
    wishes: Wishes | None = None  # what a text asks for
    agreements: np.ndarray | None = None  # (k,) float64 agreement over time of the items of a task with its pieces
    digest: str = ""  # of the network, in the message that the worker is ready
    asked: dict[str, Any] = field(default_factory=dict)  # of a JSON body, without features; facts
    kind: str = ""  # of an error: media, input, other; without a worker: timeout, crash, unavailable, other_checkpoint
    reason: str = ""  # `MediaError.reason`, or the code of a body that is refused
    message: str = ""  # for the client, of `input` only; may repeat what it sent
    failure: str = ""  # what failed, for the log: nothing of the request is in it
    warnings: tuple[str, ...] = ()  # on the file, e.g. that only a part of it could be read


def run_worker(
    connection: Connection, checkpoint: Path, weights_dir: Path, n_threads: int, file_timeout_s: float
) -> None:
    """Load the networks, report it, then work on tasks until the connection closes."""
    os.nice(NICENESS)
    # A terminal or systemd signals the whole process group; the service decides when a worker ends.
    for number in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, number):
            signal.signal(getattr(signal, number), signal.SIG_IGN)
    try:
        embedder = _load(checkpoint, weights_dir, n_threads, file_timeout_s)
    except Exception as error:
        _send(connection, Answer(kind="other", failure=f"{type(error).__name__}: {error}"))
        return
    _silence()
    _start_decoder(embedder.sandbox)
    _send(connection, Answer(digest=embedder.digest))
    _answer_all(connection, embedder, file_timeout_s)


def _answer_all(connection: Connection, embedder: Embedder, file_timeout_s: float) -> None:
    """Each task has one time budget for all of its reading."""
    with suppress(EOFError, OSError):
        while True:
            task: Task = connection.recv()
            embedder.sandbox.deadline = time.monotonic() + file_timeout_s
            connection.send(_answer(embedder, task))
            _start_decoder(embedder.sandbox)


def _silence() -> None:
    """Discard what libraries, decoders and their children print about a file; results name the failure."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(nowhere, descriptor)
    os.close(nowhere)


def _send(connection: Connection, answer: Answer) -> None:
    with suppress(OSError):  # the service has ended
        connection.send(answer)


def _start_decoder(sandbox: Sandbox) -> None:
    """Replace a decoder that was ended before the next task has to wait for it."""
    with suppress(SandboxError):
        sandbox.start(1)


def _load(checkpoint: Path, weights_dir: Path, n_threads: int, file_timeout_s: float) -> Embedder:
    import torch

    from vmnet_pipeline.inference.embedder import Embedder
    from vmnet_pipeline.media.sandbox import Sandbox
    from vmnet_pipeline.params import LimitParams

    torch.set_num_threads(n_threads)
    sandbox = Sandbox(LimitParams.model_validate({"seconds": file_timeout_s}))
    embedder = Embedder.load(checkpoint, weights_dir=weights_dir, sandbox=sandbox)
    for side in ("music", "video"):
        embedder.backend(side)
    return embedder


def _answer(embedder: Embedder, task: Task) -> Answer:
    try:
        if task.music_path is not None:
            return Answer(asked=_find_passages(embedder, task))
        if task.explains and task.ids:
            return Answer(reasons=_explain_answers(embedder, task))
        if task.ids:
            return Answer(agreements=_align(embedder, task))
        if task.probes:
            return Answer(asked=_describe_file(embedder.sandbox, task))
        if task.text is not None:
            return _understand(embedder, task.side, task.text, task.columns)
        task, asked = _read_body(task) if task.body else (task, {})
        warnings: list[str] = []
        embedding, feature = _embed(embedder, task, warnings)
        pieces = _embed_pieces(embedder, task, feature) if task.with_pieces else None
        kept = feature if task.explains else None
        return Answer(embedding=embedding, pieces=pieces, feature=kept, asked=asked, warnings=tuple(warnings))
    except Exception as error:  # one bad request must not end the worker
        return _explain(error, is_file=task.path is not None)


def _explain(error: Exception, *, is_file: bool) -> Answer:
    failure = describe_failure(error)
    if isinstance(error, RefusedError):
        return Answer(kind="input", reason=error.code, message=str(error), failure=failure)
    if isinstance(error, MediaError):
        return Answer(kind="media", reason=error.reason, failure=failure)
    if isinstance(error, VmnetError) and not is_file:
        return Answer(kind="input", message=str(error), failure=failure)
    return Answer(kind="other", failure=failure)


def _read_body(task: Task) -> tuple[Task, dict[str, Any]]:
    from vmnet_pipeline.serving import schemas

    wanted = schemas.read_query(getattr(schemas, task.model), task.body)
    if wanted.features is None:
        raise RefusedError(422, "bad_request", "A body without features is too long.")
    features = schemas.read_features(wanted.features)
    asked = {**wanted.model_dump(exclude={"features"}), "features": []}
    task = replace(task, side=wanted.query, features=features, pooled=wanted.pooled, body=b"")
    explains = asked.get("reasons", False)
    return replace(task, with_pieces=asked.get("rerank") is not None, explains=explains), asked


def _embed(embedder: Embedder, task: Task, warnings: list[str]) -> tuple[np.ndarray | None, ItemFeature | None]:
    """The embedding of a task, and the feature that it was made from, unless that is stored."""
    if task.item_id:
        return None, None
    if task.path is None:
        features = [task.features, None] if task.side == "music" else [None, task.features]
        return next(found for found in embedder(features, pooled=task.pooled) if found is not None), task.features
    _check_media(embedder.sandbox, task)
    feature = embedder.extract(task.side, task.path, warnings=warnings)
    return embedder.embed_feature(task.side, feature), feature


def _embed_pieces(embedder: Embedder, task: Task, feature: ItemFeature | None) -> np.ndarray:
    from vmnet_pipeline.search.reranking import PIECE_S

    if task.pooled:
        raise RefusedError(422, "cannot_rerank", "Pooled features cannot be re-ranked: send features over time.")

    def embed(store: FeatureStore | JointStore) -> np.ndarray:
        return embedder.cut_pieces(task.side, PIECE_S).embed(store.load(task.item_id))

    if task.item_id:
        return _use_store(embedder, task, embed)
    with _explaining_reranking():
        return embedder.cut_pieces(task.side, PIECE_S).embed(cast("ItemFeature", feature))


def _align(embedder: Embedder, task: Task) -> np.ndarray:
    from vmnet_pipeline.search.reranking import align_stored

    pieces = cast("np.ndarray", task.pieces)
    return _use_store(embedder, task, lambda store: align_stored(embedder, pieces, task.side, store, task.ids))


def _understand(embedder: Embedder, side: Side, text: str, columns: tuple[str, ...]) -> Answer:
    """Read a text, in the network's own space of texts if it has one; refused without naming a path."""
    from vmnet_pipeline.inference.text_space import embed_texts, embeds_texts
    from vmnet_pipeline.words.asking import read_clauses
    from vmnet_pipeline.words.qualities import REMEDY
    from vmnet_pipeline.words.sentences import MODEL, TOKENIZER

    try:
        clauses = read_clauses(text)
        if embeds_texts(embedder, side):
            return Answer(embedding=embed_texts(embedder, side, [clause.text for clause in clauses]))
        if columns:
            return Answer(wishes=_make_listener(Path(embedder.weights_dir), columns).understand(text))
        sentence = f"Words can ask for nothing here: the {side} of this collection has no tags or descriptors."
        raise RefusedError(422, "no_words", f"{sentence} On the server, {REMEDY[side]}.")
    except ParameterError as error:
        raise RefusedError(422, "bad_text", f"{str(error)[:1].upper()}{str(error)[1:]}.") from error
    except WeightsError as error:
        sentence = "The sentence encoder is missing here. On the server, run `kedro weights fetch"
        raise RefusedError(422, "no_words", f"{sentence} {MODEL} {TOKENIZER}`.") from error


@lru_cache(maxsize=4)
def _make_listener(weights_dir: Path, columns: tuple[str, ...]) -> Listener:
    from vmnet_pipeline.words.sentences import SentenceEncoder
    from vmnet_pipeline.words.understanding import Listener

    return Listener(columns, SentenceEncoder(weights_dir, may_fetch=False))


def _explain_answers(embedder: Embedder, task: Task) -> tuple[str, ...]:
    """Reasons for the items of a task; empty texts where the features do not tell them."""
    from vmnet_pipeline.search.recommendation import explain_stored, target_side

    try:
        store = _open_store(embedder, task.features_dir, target_side(task.side, same_side=False))
        feature = task.feature
        if task.item_id:
            feature = _open_store(embedder, task.features_dir, task.side).load(task.item_id)
        reasons = {} if feature is None else explain_stored(embedder, task.side, feature, store, task.ids)
        if feature is not None and len(reasons) < len(task.ids):  # of a newer index
            store.reload()
            reasons = explain_stored(embedder, task.side, feature, store, task.ids)
    except VmnetError:  # answers without reasons are still answers
        reasons = {}
    return tuple(reasons.get(item_id, "") for item_id in task.ids)


def _use_store(embedder: Embedder, task: Task, use: Callable[[FeatureStore | JointStore], np.ndarray]) -> np.ndarray:
    """Call `use` with the stored features of the task's side; reload their index only if one does not match it."""
    with _explaining_reranking():
        store = _open_store(embedder, task.features_dir, task.side)
        try:
            return use(store)
        except FeatureStoreError:
            store.reload()
            return use(store)


@lru_cache
def _open_store(embedder: Embedder, folder: Path | None, side: Side) -> FeatureStore | JointStore:
    from vmnet_pipeline.search.reranking import open_features

    if folder is None:
        raise FeatureStoreError("the service does not know the feature stores of the collection")
    return open_features(embedder, folder, side)


@contextmanager
def _explaining_reranking() -> Iterator[None]:
    """Refuse re-ranking without naming a path."""
    try:
        yield
    except (ParameterError, EmbedderError) as error:
        raise RefusedError(422, "cannot_rerank", f"Results cannot be re-ranked: {error}.") from error
    except VmnetError as error:
        sentence = "Results cannot be re-ranked: the features of the collection are not available. Omit `rerank`."
        raise RefusedError(422, "cannot_rerank", sentence) from error


def _check_media(sandbox: Sandbox, task: Task) -> None:
    """Refuse a file without the wanted side, or one that is too long, before the expensive part.

    Raises:
        MediaError: Reasons of `probe_in_sandbox`, or that the side is missing.
    """
    from vmnet_pipeline.media.probe import probe_in_sandbox
    from vmnet_pipeline.types import MODALITY_OF

    path, modality = str(task.path), MODALITY_OF[task.side]
    info = probe_in_sandbox(sandbox, path, check=(modality,), max_duration_s=task.max_duration_s)
    if (info.audio if task.side == "music" else info.video) is None:
        raise MediaError(f"no_{modality}_stream", f"{path}: has no {modality}")


def _find_passages(embedder: Embedder, task: Task) -> dict[str, Any]:
    from vmnet_pipeline.serving.passages import find_passages

    known = {"video": (task.feature, task.item_id), "music": (task.music_feature, "".join(task.ids))}

    def load(side: Side) -> ItemFeature | None:
        feature, item_id = known[side]
        return _open_store(embedder, task.features_dir, side).load(item_id) if item_id else feature

    video, music = replace(task, side="video"), replace(task, side="music", path=task.music_path)
    for one in (video, music):
        _check_media(embedder.sandbox, one)
    return find_passages(embedder, str(video.path), str(music.path), load)


def _describe_file(sandbox: Sandbox, task: Task) -> dict[str, Any]:
    """Container and, in seconds, lengths of both sides of a file: 0 if not known, None if it has no such side."""
    from vmnet_pipeline.media.probe import probe_in_sandbox

    info = probe_in_sandbox(sandbox, str(task.path), check=(), max_duration_s=task.max_duration_s)
    sides = {"audio_s": info.audio, "video_s": info.video}
    lengths = {name: None if side is None else side.duration_s or 0.0 for name, side in sides.items()}
    return {"container": info.container, **lengths}
