"""Index of a feature store, kept in columns: one row per item, the latest."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class FeatureRow:
    """Index entry of one item.

    Attributes:
        id: Item id; the feature is `ID.npy` when `status` is `done`.
        status: `done` or `failed`.
        source_checksum: Content checksum of the media file the feature was made from.
        shape: Shape of the array, empty for a failed item.
        dtype: NumPy name of the dtype, empty for a failed item.
        n_valid: Number of leading entries that stem from real signal.
        size_bytes: Size of `ID.npy`.
        checksum: sha256 of the bytes of `ID.npy`.
        reason: Slug of the failure, e.g. `undecodable_audio`.
        error: The failure in words.
        seconds: Time spent in decoding and front end.
        warning: What the user must know about the feature, e.g. that only a part of the file could be read.
        adopted_from: The item whose feature was reused, because both have the same content; else empty.
    """

    id: str
    status: Literal["done", "failed"]
    source_checksum: str
    shape: tuple[int, ...] = ()
    dtype: str = ""
    n_valid: int = 0
    size_bytes: int = 0
    checksum: str = ""
    reason: str = ""
    error: str = ""
    seconds: float = 0.0
    warning: str = ""
    adopted_from: str = ""


_ARROW_TYPES = {"int": "int64", "float": "double", "tuple[int, ...]": "list<int64>"}
ROW_COLUMNS = {field.name: _ARROW_TYPES.get(str(field.type), "string") for field in fields(FeatureRow)}
"""Columns of the index for `row_log.RowLog`."""

_DEFAULTS = {field.name: "" if field.default is MISSING else field.default for field in fields(FeatureRow)}


class FeatureIndex(Mapping[str, FeatureRow]):
    """The rows of a store by item id. A row becomes an object only on access.

    Attributes:
        table: The columns of `ROW_COLUMNS`; every id once, see `latest`.
    """

    def __init__(self, table: pa.Table) -> None:
        self.table = table

    @classmethod
    def latest(cls, table: pa.Table) -> FeatureIndex:
        """Keep the last row of every item; rows are given oldest first.

        A failure does not replace a finished row of the same media file: another writer may have succeeded.
        """
        import pyarrow.compute as pc

        if table["id"].null_count:  # a foreign line
            table = table.filter(table["id"].is_valid())
        if pc.count_distinct(table["id"]).as_py() == len(table):
            return cls(table)
        keys = table.select(["id", "source_checksum", "status"]).to_pandas()
        repeated = keys["id"].duplicated(keep=False)
        counting: dict[str, tuple[int, str, str]] = {}
        for place, item_id, source, status in keys[repeated].itertuples():
            _, known_source, known_status = counting.get(item_id, (0, "", ""))
            if not (known_source == source and known_status == "done" and status == "failed"):
                counting[item_id] = (place, source, status)
        keep = ~repeated.to_numpy()
        keep[[place for place, _, _ in counting.values()]] = True
        return cls(table.filter(keep).combine_chunks())

    @cached_property
    def _places(self) -> dict[str, int]:
        return {item_id: place for place, item_id in enumerate(self.table["id"].to_pylist())}

    def __getitem__(self, item_id: str) -> FeatureRow:
        (content,) = self.table.slice(self._places[item_id], 1).to_pylist()
        return _make_row(content)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self.table)

    def find_contents(self, source_checksums: Collection[str]) -> list[FeatureRow]:
        """The rows that stem from media files with these checksums."""
        import pyarrow as pa
        import pyarrow.compute as pc

        wanted = pa.array(sorted(source_checksums), pa.string())
        found = self.table.filter(pc.is_in(self.table["source_checksum"], wanted))
        return [_make_row(content) for content in found.to_pylist()]

    def find_places(self, ids: Sequence[str]) -> pa.Array:
        """Position in `table` of each of `ids`; null for one without a row."""
        import pyarrow as pa
        import pyarrow.compute as pc

        known = pa.array([], pa.string()) if not len(self.table) else self.table["id"].combine_chunks()
        return pc.index_in(pa.array(ids, pa.string()), value_set=known)

    def take(self, places: pa.Array, *columns: str) -> pd.DataFrame:
        """Some columns of the rows at `places`; null for a place that is null."""
        return FeatureIndex(self.table.select(list(columns)).take(places)).to_frame(*columns)

    def to_frame(self, *columns: str) -> pd.DataFrame:
        """Some columns, in the order of `table`."""
        frame: pd.DataFrame = self.table.select(list(columns)).to_pandas()
        return frame


def _make_row(content: dict[str, Any]) -> FeatureRow:
    known = {name: value for name, value in content.items() if value is not None}
    return FeatureRow(**{**_DEFAULTS, **known, "shape": tuple(known.get("shape", ()))})
