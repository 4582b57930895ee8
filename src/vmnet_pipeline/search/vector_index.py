"""Search among embeddings by inner product: exact, with a graph (HNSW), or compressed (IVF-PQ). Built on faiss.

Vectors get positions 0, 1, 2, ... in the order they are added; row i of `items` describes position i. Removed items
keep their position and are hidden from searches until the index is rebuilt: an HNSW graph cannot lose a node, because
paths to other nodes lead through it, and one way for all kinds is simpler.

Source: faiss, arXiv:2401.08281; HNSW, arXiv:1603.09320.
"""

from __future__ import annotations

import math
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from vmnet_pipeline.errors import SearchIndexError
from vmnet_pipeline.params import IndexParams
from vmnet_pipeline.search.filters import select_items

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import pandas as pd

    from vmnet_pipeline.params import IndexKind
    from vmnet_pipeline.search.filters import Filter

EXACT_SHARE = 0.1
"""A smaller share of a graph's items is compared with one by one, as is what a filter leaves up to `flat_max_items`."""
ADD_CHUNK = 65_536
MAX_TRAINING_VECTORS = 200_000
POINTS_PER_LIST = 39
"""Fewest training vectors per cluster that faiss finds enough."""
MIN_TRAINING_VECTORS = 256 * POINTS_PER_LIST


@dataclass(frozen=True, slots=True)
class Hit:
    """One search result.

    Attributes:
        id: Item id.
        score: Inner product of unit vectors, -1 to 1; an approximation for IVF-PQ.
        position: Row in `VectorIndex.items`.
    """

    id: str
    score: float
    position: int


class _SharedLock:
    """Many searches at once, or one change; a change that waits goes before searches that come after it."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._n_readers = 0
        self._has_writer = False

    @contextmanager
    def shared(self) -> Iterator[None]:
        with self._condition:
            self._condition.wait_for(lambda: not self._has_writer)
            self._n_readers += 1
        try:
            yield
        finally:
            with self._condition:
                self._n_readers -= 1
                self._condition.notify_all()

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        with self._condition:
            self._condition.wait_for(lambda: not self._has_writer)
            self._has_writer = True
            try:
                self._condition.wait_for(lambda: self._n_readers == 0)
                yield
            finally:
                self._has_writer = False
                self._condition.notify_all()


class VectorIndex:
    """Unit vectors with an id and metadata each. Thread-safe: several threads may search and change it.

    Attributes:
        params: How it was built and is searched.
        kind: `flat`, `hnsw` or `ivfpq`.
        items: One row per position with column `id`, free columns of metadata, and `source`, which tells from what
            the vector was made (may be empty). Removed items are in it too.
        alive: (n,) bool, False for removed items.
        about: JSON to keep with the index, e.g. `checkpoint`, the digest of the network.

    Example:
        >>> import numpy as np, pandas as pd
        >>> from vmnet_pipeline.search.vector_index import VectorIndex
        >>> items = pd.DataFrame({"id": ["a", "b", "c"], "group": ["jazz", "rock", "jazz"]})
        >>> index = VectorIndex.build(np.eye(3, dtype=np.float32), items)
        >>> query = np.array([0.6, 0.8, 0.0], np.float32)
        >>> [(hit.id, round(hit.score, 1)) for hit in index.search(query, k=2)[0]]
        [('b', 0.8), ('a', 0.6)]
        >>> [hit.id for hit in index.search(query, k=2, filters=["group=jazz"])[0]]
        ['a', 'c']
    """

    def __init__(
        self,
        faiss_index: Any,
        kind: IndexKind,
        items: pd.DataFrame,
        alive: np.ndarray,
        params: IndexParams,
        about: dict[str, Any],
    ) -> None:
        self.faiss_index, self.kind, self.params, self.about = faiss_index, kind, params, about
        self.items, self.alive = items, alive
        self._lock = _SharedLock()

    @classmethod
    def build(
        cls,
        vectors: np.ndarray,
        items: pd.DataFrame,
        params: IndexParams | None = None,
        about: dict[str, Any] | None = None,
    ) -> VectorIndex:
        """Index vectors.

        Args:
            vectors: (n, E) float32 unit rows; may be memory-mapped. n may be 0.
            items: n rows with column `id`; ids are unique.
            params: Kind and sizes.
            about: See the attribute.

        Raises:
            SearchIndexError: Lengths differ, an id is repeated, a vector is not finite, or the sizes do not fit.
        """
        params = params or IndexParams.model_validate({})
        kind, empty = choose_kind(params, len(vectors)), items.iloc[:0].reset_index(drop=True)
        faiss_index = _make_faiss_index(kind, vectors, params)
        index = cls(faiss_index, kind, empty, np.empty(0, dtype=bool), params, dict(about or {}))
        index.add(vectors, items)
        return index

    def __len__(self) -> int:
        """Items that can be found."""
        return int(self.alive.sum())

    @property
    def dim(self) -> int:
        """E."""
        return int(self.faiss_index.d)

    @property
    def ids(self) -> list[str]:
        """Ids of the items that can be found, in order of position."""
        return [str(item_id) for item_id in self.items["id"].to_numpy()[self.alive]]

    # --- changing

    def add(self, vectors: np.ndarray, items: pd.DataFrame) -> None:
        """Add items; those that are there stay where they are.

        Raises:
            SearchIndexError: Lengths or widths differ, an id is there already, or a vector is not finite.
        """
        import pandas as pd

        with self._lock.exclusive():
            self._check_new(vectors, items)
            for start in range(0, len(vectors), ADD_CHUNK):
                chunk = np.ascontiguousarray(vectors[start : start + ADD_CHUNK], np.float32)
                if not np.isfinite(chunk).all():
                    self._forget_after(len(self.alive))
                    raise SearchIndexError("a vector has NaN or infinity; embed its item again")
                self.faiss_index.add(chunk)
            tables = [table for table in (self.items, items) if len(table)]
            self.items = pd.concat(tables, ignore_index=True) if tables else self.items
            self.alive = np.concatenate([self.alive, np.ones(len(vectors), dtype=bool)])

    def _check_new(self, vectors: np.ndarray, items: pd.DataFrame) -> None:
        if vectors.ndim != 2 or vectors.shape[1] != self.dim:
            raise SearchIndexError(f"vectors have shape {vectors.shape}; this index takes (n, {self.dim})")
        if len(vectors) != len(items):
            raise SearchIndexError(f"there are {len(vectors)} vectors but {len(items)} items; give one row each")
        ids = items["id"]
        doubled = ids[ids.duplicated() | ids.isin(self.ids)]
        if len(doubled):
            raise SearchIndexError(f"id {doubled.iloc[0]!r} is there already; remove it first, or give another id")

    def _forget_after(self, n: int) -> None:
        """Hide vectors that were added before adding failed; positions must stay in step with the table."""
        import pandas as pd

        n_spare = self.faiss_index.ntotal - n
        spare = pd.DataFrame({"id": [""] * n_spare})
        self.items = pd.concat([self.items, spare], ignore_index=True) if n_spare else self.items
        self.alive = np.concatenate([self.alive, np.zeros(n_spare, dtype=bool)])

    def remove(self, ids: Iterable[str]) -> int:
        """Hide items from all searches; how many of `ids` were there."""
        with self._lock.exclusive():
            found = self.items["id"].isin(list(ids)).to_numpy(dtype=bool) & self.alive
            self.alive = self.alive & ~found
            return int(found.sum())

    def describe_items(self, items: pd.DataFrame) -> None:
        """Replace the metadata of all items; ids without a row in `items` get empty cells."""
        with self._lock.exclusive():
            kept = self.items[["id", "source"]] if "source" in self.items else self.items[["id"]]
            self.items = kept.merge(items.drop(columns=["source"], errors="ignore"), on="id", how="left")

    # --- searching

    def count(self, filters: Sequence[Filter | str] = ()) -> int:
        """Count the items that can be found and meet all conditions; otherwise as `search`."""
        return int(self.select(filters).sum())

    def select(self, filters: Sequence[Filter | str] = ()) -> np.ndarray:
        """Which rows of `items` can be found and meet all conditions: (n,) bool; otherwise as `search`."""
        with self._lock.shared():
            allowed = select_items(self.items, filters) if filters else True
            return np.asarray(self.alive & allowed)

    def take_vectors(self, positions: Sequence[int]) -> np.ndarray:
        """Vectors of some rows of `items`: (k, E) float32; what is left of them in an IVF-PQ index."""
        if self.kind == "ivfpq":
            with self._lock.exclusive():
                self.faiss_index.make_direct_map()
        with self._lock.shared():
            rows = [self.faiss_index.reconstruct(int(position)) for position in positions]
        return np.stack(rows) if rows else np.empty((0, self.dim), np.float32)

    def search(self, queries: np.ndarray, k: int = 10, filters: Sequence[Filter | str] = ()) -> list[list[Hit]]:
        """Find the k best items of each query, best first; fewer if fewer match.

        Args:
            queries: (q, E) or (E,) float32 unit vectors.
            k: Results per query, >= 1.
            filters: Conditions that every result meets, e.g. `["group=jazz", "duration<60"]`.

        Raises:
            SearchIndexError: The width is wrong, a query is not finite, or a filter cannot be used.
        """
        with self._lock.shared():
            allowed = select_items(self.items, filters) if filters else None
            scores, positions = self._search(queries, k, allowed)
            ids = self.items["id"].to_numpy()
        return [
            [Hit(str(ids[p]), float(s), int(p)) for s, p in zip(row_scores, row, strict=True) if p >= 0]
            for row_scores, row in zip(scores, positions, strict=True)
        ]

    def _search(self, queries: np.ndarray, k: int, allowed: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """(q, k') scores and positions, k' = min(k, items); -1 where there is no answer; `allowed` is (n,) bool."""
        queries = np.atleast_2d(np.ascontiguousarray(queries, np.float32))
        if queries.ndim != 2 or queries.shape[1] != self.dim:
            raise SearchIndexError(f"queries have shape {queries.shape}; this index takes (q, {self.dim})")
        if k < 1 or not np.isfinite(queries).all():
            raise SearchIndexError(f"k is {k}; give 1 or more" if k < 1 else "a query has NaN or infinity")
        mask = self.alive if allowed is None else self.alive & allowed
        n_allowed = int(mask.sum())
        if n_allowed == 0:
            return np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
        k, share = min(k, n_allowed), n_allowed / len(mask)
        bitmap = np.packbits(mask, bitorder="little")
        allowed_only = {} if share == 1 else {"sel": import_faiss().IDSelectorBitmap(bitmap)}
        # HNSW walks from node to nearer node, and a filter hides nodes only from the results. If few items pass it, or
        # all of them are far from the query, the walk ends among hidden ones: then compare with each allowed item.
        is_few = share < EXACT_SHARE or (allowed is not None and n_allowed <= self.params.flat_max_items)
        index, search_params = (
            self._prepare_exact(allowed_only)
            if self.kind == "flat" or (self.kind == "hnsw" and is_few)
            else self._prepare_approximate(allowed_only, share, k)
        )
        scores, positions = index.search(queries, k, params=search_params)
        short = positions.min(axis=1) < 0  # the walk found fewer than k allowed items, although there are k
        if self.kind == "hnsw" and short.any():
            index, search_params = self._prepare_exact(allowed_only)
            scores[short], positions[short] = index.search(queries[short], k, params=search_params)
        return scores, positions

    def _prepare_approximate(self, allowed_only: dict[str, Any], share: float, k: int) -> tuple[Any, Any]:
        """What to search in, and how: hidden items use up width, so the fewer are allowed, the wider it searches."""
        faiss = import_faiss()
        if self.kind == "hnsw":
            width = math.ceil(max(self.params.hnsw_search_width, k) / share)
            return self.faiss_index, faiss.SearchParametersHNSW(efSearch=width, **allowed_only)
        probes = min(self.faiss_index.nlist, math.ceil(self.params.ivf_probes / share))
        return self.faiss_index, faiss.SearchParametersIVF(nprobe=probes, **allowed_only)

    def _prepare_exact(self, allowed_only: dict[str, Any]) -> tuple[Any, Any]:
        """The same for a comparison with all whole vectors, which a compressed index does not have."""
        faiss = import_faiss()
        whole = faiss.downcast_index(self.faiss_index.storage) if self.kind == "hnsw" else self.faiss_index
        return whole, faiss.SearchParameters(**allowed_only)


def import_faiss() -> Any:
    """The module faiss; its type hints do not know the forms that its Python layer takes."""
    return import_module("faiss")


def choose_kind(params: IndexParams, n_items: int) -> IndexKind:
    """Choose the kind of index for `n_items`: the one asked for, or what suits the number."""
    if params.kind == "flat" or (params.kind == "auto" and n_items <= params.flat_max_items):
        return "flat"
    if params.kind == "hnsw" or (params.kind == "auto" and n_items <= params.hnsw_max_items):
        return "hnsw"
    # Below this number there are too few to learn codes from, and comparing with all of them is fast.
    return "ivfpq" if n_items >= MIN_TRAINING_VECTORS else "flat"


def _make_faiss_index(kind: IndexKind, vectors: np.ndarray, params: IndexParams) -> Any:
    faiss = import_faiss()
    if vectors.ndim != 2:
        raise SearchIndexError(f"vectors have shape {vectors.shape}; give (n, E)")
    n, dim = vectors.shape
    if kind == "flat":
        return faiss.IndexFlatIP(dim)
    if kind == "hnsw":
        index = faiss.IndexHNSWFlat(dim, params.hnsw_links, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = params.hnsw_build_width
        return index
    if dim % params.pq_bytes:
        raise SearchIndexError(f"index.pq_bytes={params.pq_bytes} does not divide the {dim} values of an embedding")
    n_lists = min(params.ivf_lists or int(4 * math.sqrt(n)), n // POINTS_PER_LIST)
    # "np": without the ordering of codes that faiss adds by default, which nothing here uses and which takes minutes.
    index = faiss.index_factory(dim, f"IVF{n_lists},PQ{params.pq_bytes}np", faiss.METRIC_INNER_PRODUCT)
    rows = np.sort(np.random.default_rng(0).permutation(n)[:MAX_TRAINING_VECTORS])
    index.train(np.ascontiguousarray(vectors[rows], np.float32))
    return index
