"""The files of a query: found and checked before a network is loaded, which is then loaded once for all."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vmnet_pipeline.errors import ParameterError, SearchIndexError
from vmnet_pipeline.storage.names import normalise

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np

    from vmnet_pipeline.inference.embedder import Embedder
    from vmnet_pipeline.search.recommendation import Ranking
    from vmnet_pipeline.search.vector_index import VectorIndex
    from vmnet_pipeline.types import CollectionPlaces, Side


def expand_folders(paths: Iterable[Path]) -> list[Path]:
    """Files, and instead of each folder the media files in it.

    Raises:
        ParameterError: A folder holds no media.
    """
    from vmnet_pipeline.ingestion.listing import list_media_files
    from vmnet_pipeline.ingestion.probing import recognise_files

    found: list[Path] = []
    for path in paths:
        files = list(map(Path, list_media_files(path, recognise_files))) if path.is_dir() else [path]
        if not files:
            raise ParameterError(f"{path} holds no media files.")
        found += files
    return found


class Searcher:
    """An index, and the network that made it, for any number of queries."""

    def __init__(self, places: CollectionPlaces, query: Side, *, same_side: bool) -> None:
        """Read the index; the network is read when a file needs it.

        Raises:
            SearchIndexError: There is no index, or it is damaged.
        """
        from vmnet_pipeline.search.index_files import load_index
        from vmnet_pipeline.search.recommendation import target_side

        self._places, self._query, self._same_side = places, query, same_side
        self._side = target_side(query, same_side=same_side)
        self._index = load_index(places.output / f"{self._side}_index")

    @cached_property
    def _embedder(self) -> Embedder:
        from vmnet_pipeline.inference.embedder import Embedder

        return Embedder.load(self._places.checkpoint, weights_dir=self._places.weights_dir)

    @cached_property
    def _query_index(self) -> VectorIndex:
        from vmnet_pipeline.search.index_files import load_index

        return load_index(self._places.output / f"{self._query}_index")

    def rank(self, path: Path, *, rerank: float | None, **options: Any) -> Ranking:
        """Rank the items for a file, or for an item of the collection that is given by its id.

        Args:
            path: A media file; where there is none of this name, the id of an item.
            rerank: See `search.recommendation.recommend`.
            options: Of the same.

        Raises:
            VmnetError: A filter, the file, the checkpoint or the index cannot be used.
        """
        self._index.count(options.get("filters", ()))  # a column that is not there, before anything is loaded
        if not path.exists():
            return self._rank_item(path, rerank=rerank, **options)
        self._check_kind(path)
        from vmnet_pipeline.inference.reasons import can_explain
        from vmnet_pipeline.search.recommendation import recommend
        from vmnet_pipeline.search.reranking import open_features

        embedder, features = self._embedder, self._places.features
        wants_store = rerank is not None or can_explain(embedder)
        store = open_features(embedder, features, self._side) if wants_store and features else None
        shared: dict[str, Any] = {"same_side": self._same_side, "rerank": rerank, "store": store}
        return recommend(embedder, self._index, path, self._query, **shared, **options)

    def _rank_item(self, path: Path, *, rerank: float | None, **options: Any) -> Ranking:
        """Rank for a stored item; no network is needed."""
        from vmnet_pipeline.search.recommendation import rank_items

        item_id, vector = normalise(str(path)), self._find_vector(path)
        if rerank is not None:
            raise ParameterError("--rerank compares a file piece by piece; give the file instead of the id.")
        if self._same_side:
            options["exclude"] = [*options.get("exclude", ()), item_id]
        return rank_items(self._index, vector, direction=f"{self._query}_to_{self._side}", **options)

    def _find_vector(self, path: Path) -> np.ndarray:
        """(1, E) embedding of the item of this id.

        Raises:
            ParameterError: There is neither such a file nor such an item.
        """
        try:
            ids = self._query_index.ids
        except SearchIndexError:  # of a collection with one side
            ids = []
        if (item_id := normalise(str(path))) not in ids:
            raise ParameterError(f"There is no file {path}, and no {self._query} of this id in the collection.")
        return self._query_index.take_vectors([ids.index(item_id)])

    def _check_kind(self, path: Path) -> None:
        """Refuse audio where a video is needed, without decoding it.

        Raises:
            ParameterError: The file is audio.
        """
        from vmnet_pipeline.ingestion.discovery import is_audio_file

        if self._query == "video" and is_audio_file(str(path)):
            raise ParameterError(f"{path.name} is audio. To find videos for it: --music {path}")
