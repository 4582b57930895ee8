"""Several libraries side by side, searched together: whole vectors first, then the pieces of the best."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vmnet_pipeline.errors import SearchIndexError
from vmnet_pipeline.inference.embeddings import read_embeddings
from vmnet_pipeline.search.index_files import load_index
from vmnet_pipeline.search.recommendation import list_metadata

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from vmnet_pipeline.inference.embeddings import EmbeddingSet
    from vmnet_pipeline.params import PieceParams
    from vmnet_pipeline.search.filters import Filter
    from vmnet_pipeline.search.vector_index import VectorIndex
    from vmnet_pipeline.types import Array, Side

REMEDY = "run `kedro run --pipelines=ingest,extract,embed,index --params library=FOLDER,checkpoint=...` again"


@dataclass(frozen=True)
class Library:
    """One side of an indexed library.

    Attributes:
        place: What the user calls it.
        index: Vectors of whole files.
        embeddings: The same with their pieces.
        rows: Id to row of `embeddings`.
        paths: Id to media file.
    """

    place: str
    index: VectorIndex
    embeddings: EmbeddingSet
    rows: dict[str, int]
    paths: dict[str, str]

    @property
    def pieces(self) -> PieceParams:
        """How its files were cut."""
        assert self.embeddings.pieces is not None  # noqa: S101 - `open_library` has checked it
        return self.embeddings.pieces.params

    def take_pieces(self, item_id: str) -> Array:
        """(n, E) float32 unit rows, the pieces of an item in order of time."""
        assert self.embeddings.pieces is not None  # noqa: S101
        return self.embeddings.pieces.take(self.rows[item_id])


@dataclass(frozen=True)
class LibraryHit:
    """One item found.

    Attributes:
        library: Where it is.
        id: Item id, unique within its library.
        score: By its pieces, -1 to 1.
        metadata: See `Recommendation.metadata`.
        pieces: (n, E) float32.
    """

    library: Library
    id: str
    score: float
    metadata: dict[str, Any]
    pieces: Array

    @property
    def path(self) -> str:
        """The media file."""
        return self.library.paths[self.id]


def open_library(place: str, output: Path, manifest: Path, side: Side, digest: str) -> Library:
    """Open one side of a library.

    Args:
        place: What the user calls it.
        output: Folder with its indexes and embeddings.
        manifest: Its manifest.
        side: The side to search.
        digest: Identity of the network that made it.

    Raises:
        SearchIndexError: It is missing, damaged, made by another network, or without pieces.
    """
    from vmnet_pipeline.storage.checksummed import read_frame

    index, embeddings = load_index(output / f"{side}_index"), read_embeddings(output / f"{side}_embeddings")
    if {index.about.get("checkpoint"), embeddings.checkpoint} != {digest}:
        raise SearchIndexError(f"the library {place} was indexed with another network; {REMEDY}")
    if embeddings.pieces is None:
        raise SearchIndexError(f"{output} is that of a collection of pairs, without pieces; {REMEDY}")
    rows = {item_id: row for row, item_id in enumerate(embeddings.ids)}
    if missing := sorted({*index.ids} - {*rows}):
        raise SearchIndexError(f"the library {place} has no pieces of {missing[0]!r}; {REMEDY}")
    try:
        table = read_frame(manifest)
        column = "audio_path" if side == "music" else "video_path"
        paths = dict(zip(table["id"], table[column], strict=True))
    except (OSError, ValueError, KeyError) as error:
        raise SearchIndexError(f"{manifest} cannot be read ({error}); {REMEDY}") from error
    return Library(place, index, embeddings, rows, paths)


def search_libraries(
    libraries: Sequence[Library],
    pieces: Array,
    compare: Callable[[Array, Array], float],
    *,
    n_candidates: int = 200,
    top_k: int = 10,
    filters: Sequence[Filter | str] = (),
) -> list[LibraryHit]:
    """The best items of all libraries for the pieces of one file, best first.

    The `n_candidates` best of each library by the mean direction of their pieces are compared piece by piece.

    Args:
        libraries: Indexed by one network, cut alike.
        pieces: (m, E) float32 unit rows of the query.
        compare: Score of (m, E) and (n, E) pieces.
        n_candidates: See above.
        top_k: Most items.
        filters: Conditions that every item meets; in a library without such a column none does.

    Raises:
        SearchIndexError: A filter cannot be used in any library.
    """
    mean = pieces.mean(axis=0, dtype=np.float64)
    query = np.asarray(mean / max(float(np.linalg.norm(mean)), 1e-12), np.float32)
    hits, refusals = list[LibraryHit](), list[SearchIndexError]()
    for library in libraries:
        try:
            found = library.index.search(query, n_candidates, filters)[0]
        except SearchIndexError as error:
            refusals.append(error)
            continue
        metadata = list_metadata(library.index, [hit.position for hit in found])
        for hit, known in zip(found, metadata, strict=True):
            own = library.take_pieces(hit.id)
            hits.append(LibraryHit(library, hit.id, compare(pieces, own), known, own))
    if refusals and len(refusals) == len(libraries):
        raise refusals[0]
    return sorted(hits, key=lambda hit: -hit.score)[:top_k]
