"""The served gallery: both search indexes, the embeddings of all items, and their media.

A gallery is immutable: a new index makes a new one, and requests in progress keep the one that they began with.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast
from urllib.parse import quote

from vmnet_pipeline.errors import SearchIndexError
from vmnet_pipeline.inference.embeddings import read_embeddings
from vmnet_pipeline.search.index_files import POINTER, load_index
from vmnet_pipeline.search.recommendation import list_metadata, rank_items
from vmnet_pipeline.search.words import ask_by_qualities, ask_in_space
from vmnet_pipeline.serving.errors import RefusedError
from vmnet_pipeline.serving.media_files import open_below
from vmnet_pipeline.serving.projection import project_sides
from vmnet_pipeline.storage.checksummed import read_frame
from vmnet_pipeline.storage.names import normalise
from vmnet_pipeline.types import SIDES
from vmnet_pipeline.words.asking import read_clauses
from vmnet_pipeline.words.qualities import read_qualities

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    import numpy as np

    from vmnet_pipeline.search.recommendation import Ranking
    from vmnet_pipeline.search.reranking import Reranking
    from vmnet_pipeline.search.vector_index import VectorIndex
    from vmnet_pipeline.search.words import WordQuery
    from vmnet_pipeline.serving.worker import Answer
    from vmnet_pipeline.types import CollectionPlaces, Side
    from vmnet_pipeline.words.qualities import Qualities

logger = logging.getLogger(__name__)

PATH_COLUMNS = {"music": "audio_path", "video": "video_path"}
REMEDY = "run `kedro run --pipelines=embed,index` on this collection"


@dataclass(frozen=True, slots=True)
class GallerySide:
    """One side of the gallery."""

    index: VectorIndex
    vectors: np.ndarray  # (n, E) float32 unit rows; memory-mapped
    rows: Mapping[str, int]  # row in `vectors` of each id
    positions: Mapping[str, int]  # row in `index.items` of each id that can be found


@dataclass(frozen=True, slots=True)
class Gallery:
    """Everything served of a collection."""

    version: str
    checkpoint: str
    sides: Mapping[Side, GallerySide]
    files: Mapping[Side, Mapping[str, Path]]  # path of the media of each side of each item
    map_points: Sequence[Mapping[str, Any]]  # points of the map: id, side, x and y from -1 to 1, title and tags
    qualities: Mapping[Side, Qualities] = field(default_factory=dict)  # what words can ask for, of the sides that tell

    def find_vector(self, item_id: str, side: Side) -> np.ndarray:
        """(1, E) embedding of one side of an item; 404 if it has none."""
        found = self.sides[side].rows.get(item_id)
        if found is None:
            raise RefusedError(404, "no_such_item", f"No item with this id has {side}.")
        return self.sides[side].vectors[found : found + 1]

    def check_vector(self, values: Sequence[float], side: Side) -> np.ndarray:
        """Normalise a client's embedding to (1, E) float32; 422 for a wrong length, all zeros, or non-finite values."""
        import numpy as np

        dim, vector = self.sides[side].index.dim, np.asarray([values], np.float64)
        largest = np.abs(vector).max(initial=0.0)
        if vector.shape[1] != dim or not np.isfinite(largest) or largest == 0:
            raise RefusedError(422, "bad_embedding", f"An embedding needs {dim} finite numbers, not all zero.")
        vector /= largest  # squares of very large and very small numbers overflow
        return (vector / np.linalg.norm(vector)).astype(np.float32)

    def ask_words(self, side: Side, text: str, answer: Answer, weight: float) -> WordQuery:
        """What a worker made of words, as a query: embeddings of the clauses, or what they ask for."""
        if answer.wishes is not None:
            return ask_by_qualities(answer.wishes, self.qualities[side], weight)
        own = self.sides[side]
        return ask_in_space(
            read_clauses(text), cast("np.ndarray", answer.embedding), list(own.rows), own.vectors, weight
        )

    def search(
        self,
        vector: np.ndarray | None,
        side: Side,
        top_k: int,
        filters: Sequence[str],
        *,
        exclude: Collection[str] = (),
        reranking: Reranking | None = None,
        variety: float = 0.0,
        direction: str = "",
        one_per_group: bool = False,
        words: WordQuery | None = None,
    ) -> tuple[list[dict[str, Any]], Ranking]:
        """Rank the items of a side, see `rank_items`, and link their media; 422 for a filter that cannot be used.

        Returns:
            The items, and their ranking with its remark.
        """
        index = self.sides[side].index
        try:
            ranking = rank_items(
                index,
                vector,
                top_k=top_k,
                filters=filters,
                exclude=exclude,
                reranking=reranking,
                variety=variety,
                direction=direction,
                one_per_group=one_per_group,
                words=words,
            )
        except SearchIndexError as error:
            raise RefusedError(422, "bad_filter", str(error)) from error
        items = [asdict(item) | {"media": self.link_media(item.id, side, n_up=1)} for item in ranking]
        return items, ranking

    def describe_item(self, item_id: str) -> dict[str, Any]:
        """Metadata and media links of one item; 404 if there is none."""
        item_id = normalise(item_id)
        known = {side: self.sides[side].positions[item_id] for side in SIDES if item_id in self.sides[side].positions}
        if not known:
            raise RefusedError(404, "no_such_item", "No item has this id.")
        described = {side: list_metadata(self.sides[side].index, [position])[0] for side, position in known.items()}
        media = {side: self.link_media(item_id, side, n_up=2) for side in known}
        return {"id": item_id, "metadata": described, "media": media}

    def link_media(self, item_id: str, side: Side, n_up: int) -> str | None:
        """Link to the media of one side of an item, or None.

        It is relative to the URL of the request, `n_up` folders below the root of the service, so that it also works
        behind a proxy that adds a prefix.
        """
        if item_id not in self.files[side]:
            return None
        return f"{'../' * n_up}v1/items/{quote(item_id, safe='')}/media?side={side}"

    def open_file(self, item_id: str, side: Side, roots: Sequence[Path]) -> tuple[BinaryIO, Path]:
        """Open the media file of an item once; 404 for one outside the roots, whatever its name."""
        path = self.files[side].get(normalise(item_id))
        file = None if path is None else open_below(path, roots)
        if path is None or file is None:
            raise RefusedError(404, "no_media", "No media available for this item.")
        return file, path


def read_version(places: CollectionPlaces) -> str:
    """Version of the indexes on disk; empty if one is missing."""
    try:
        pointers = [(places.output / f"{side}_index" / POINTER).read_text(encoding="ascii") for side in SIDES]
    except (OSError, ValueError):
        return ""
    return "+".join(pointer.split()[0].removeprefix("version-") for pointer in pointers if pointer.split())


def load_gallery(places: CollectionPlaces, max_map_points: int) -> Gallery:
    """Read indexes, embeddings and the paths of the media.

    Raises:
        SearchIndexError: A part is missing or damaged, or parts do not match, as while they are being replaced.
    """
    version = read_version(places)
    sides = {side: _load_side(places.output, side) for side in SIDES}
    digests = {sides[side].index.about.get("checkpoint", "") for side in SIDES}
    if len(digests) != 1:
        raise SearchIndexError(f"the two indexes in {places.output} were made with different checkpoints; {REMEDY}")
    if read_version(places) != version:
        raise SearchIndexError(f"the indexes in {places.output} are being replaced; try again")
    points = _make_map(sides, max_map_points)
    qualities = {side: found for side in SIDES if (found := _read_words(places.output, side))}
    return Gallery(version, digests.pop(), sides, _find_files(places, sides), points, qualities)


def _read_words(output: Path, side: Side) -> Qualities | None:
    """What words can ask for; None, with a line in the log, where it is nothing: all else can be served."""
    try:
        return read_qualities(output, side)
    except SearchIndexError as error:
        reason = str(error).replace(str(output), output.name)  # folders are nothing for the log of a service
        logger.info("Searches for %s by words are refused: %s", side, reason)
        return None


def _load_side(output: Path, side: Side) -> GallerySide:
    index, embeddings = load_index(output / f"{side}_index"), read_embeddings(output / f"{side}_embeddings")
    rows = {item_id: row for row, item_id in enumerate(embeddings.ids)}
    alive = index.alive.nonzero()[0]
    positions = dict(zip(index.ids, alive.tolist(), strict=True))
    if index.about.get("checkpoint") != embeddings.checkpoint or not positions.keys() <= rows.keys():
        raise SearchIndexError(f"the {side} index in {output} does not belong to the embeddings next to it; {REMEDY}")
    return GallerySide(index, embeddings.vectors, rows, positions)


def _find_files(places: CollectionPlaces, sides: Mapping[Side, GallerySide]) -> dict[Side, dict[str, Path]]:
    """Paths of media of the gallery's items whose names are below the media roots.

    Links are followed when a file is sent: doing it here would cost a million disk look-ups at every reload.
    """
    files: dict[Side, dict[str, Path]] = {side: {} for side in SIDES}
    roots = [form for root in places.media_roots for form in (root.absolute(), root.resolve())]
    if not places.manifest.is_file():
        return files
    try:
        manifest = read_frame(places.manifest, ["id", *PATH_COLUMNS.values()])
    except (OSError, ValueError) as error:
        raise SearchIndexError(f"{places.manifest} is damaged ({error}); run `kedro run --pipeline ingest`") from error
    for side in SIDES:
        for item_id, text in zip(manifest["id"], manifest[PATH_COLUMNS[side]], strict=True):
            if not text or not isinstance(text, str) or item_id not in sides[side].positions:
                continue
            path = Path(text)
            if any(path.is_relative_to(root) for root in roots):
                files[side][item_id] = path
    return files


def _make_map(sides: Mapping[Side, GallerySide], max_points: int) -> list[dict[str, Any]]:
    """Place some items of both sides on a plane; the same index gives the same map."""
    import numpy as np

    chosen = {side: _choose_evenly(list(sides[side].positions), max_points) for side in SIDES}
    vectors = {side: sides[side].vectors[[sides[side].rows[i] for i in chosen[side]]] for side in SIDES}
    if not all(np.isfinite(rows).all() for rows in vectors.values()):
        raise SearchIndexError(f"some embeddings have NaN or infinity; {REMEDY}")
    planes = project_sides([vectors[side] for side in SIDES])
    points: list[dict[str, Any]] = []
    for side, plane in zip(SIDES, planes, strict=True):
        metadata = list_metadata(sides[side].index, [sides[side].positions[item_id] for item_id in chosen[side]])
        for item_id, (x, y), row in zip(chosen[side], plane.tolist(), metadata, strict=True):
            known = {"title": row.get("title") or item_id, "tags": row.get("tags") or ""}
            points.append({"id": item_id, "side": side, "x": round(x, 4), "y": round(y, 4), **known})
    return points


def _choose_evenly(ids: list[str], n: int) -> list[str]:
    return ids if len(ids) <= n else [ids[i * len(ids) // n] for i in range(n)]
