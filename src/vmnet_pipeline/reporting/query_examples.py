"""Show the best and the worst queries of an evaluation, with previews of the media."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vmnet_pipeline.reporting.labels import DIRECTION_LABELS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vmnet_pipeline.types import Modality

N_EXTREMES = 5
N_RESULTS = 3
_MODALITIES: dict[str, tuple[Modality, Modality]] = {
    "music_to_video": ("audio", "video"),
    "video_to_music": ("video", "audio"),
}
_MEDIA_TYPES: dict[Modality, str] = {"audio": "audio/mpeg", "video": "image/jpeg"}


@dataclass(frozen=True, slots=True)
class Query:
    """One query: its id, the rank of its best relevant item, and its top results."""

    id: str
    rank: float
    results: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class QueryTable:
    """The best or the worst queries of one direction."""

    title: str
    direction: str
    queries: tuple[Query, ...]

    @property
    def modalities(self) -> tuple[Modality, Modality]:
        """Of the queries and of the results."""
        return _MODALITIES[self.direction]


def choose_queries(ranks: Sequence[Mapping[str, Any]]) -> list[QueryTable]:
    """Choose the best and worst of `Evaluation.query_rows` in each direction; a query is never in both tables."""
    tables = []
    for direction, label in DIRECTION_LABELS.items():
        rows = [row for row in ranks if row["direction"] == direction]
        ordered = [_make_query(row) for row in sorted(rows, key=lambda row: (row["rank"], row["id"]))]
        n_shown = min(N_EXTREMES, len(ordered) // 2)
        parts = {"Best queries": ordered[:n_shown], "Worst queries": ordered[len(ordered) - n_shown :][::-1]}
        tables += [QueryTable(f"{title}, {label}", direction, tuple(shown)) for title, shown in parts.items() if shown]
    return tables


def _make_query(row: Mapping[str, Any]) -> Query:
    top_ids = row.get("top_ids")
    return Query(str(row["id"]), row["rank"], () if top_ids is None else tuple(map(str, top_ids))[:N_RESULTS])


def list_shown(tables: Sequence[QueryTable]) -> list[tuple[Modality, str]]:
    """List the media that the tables show, each once: queries, their relevant items, and the top results."""
    shown: dict[tuple[Modality, str], None] = {}
    for table in tables:
        query_modality, result_modality = table.modalities
        for query in table.queries:
            shown[query_modality, query.id] = None
            shown |= dict.fromkeys((result_modality, item_id) for item_id in (query.id, *query.results))
    return list(shown)


def lay_out_queries(
    tables: Sequence[QueryTable], previews: Mapping[tuple[Modality, str], bytes]
) -> list[dict[str, Any]]:
    """Lay out the tables for the template; an item without a preview is shown by its id alone."""
    return [
        {
            "title": table.title,
            "rows": [
                {
                    "rank": f"{query.rank:g}",
                    "query": _lay_out_item(table.modalities[0], query.id, previews),
                    "relevant": _lay_out_item(table.modalities[1], query.id, previews),
                    "results": [_lay_out_item(table.modalities[1], item_id, previews) for item_id in query.results],
                }
                for query in table.queries
            ],
        }
        for table in tables
    ]


def _lay_out_item(
    modality: Modality, item_id: str, previews: Mapping[tuple[Modality, str], bytes]
) -> dict[str, str | bool | None]:
    content = previews.get((modality, item_id))
    source = None if content is None else f"data:{_MEDIA_TYPES[modality]};base64,{base64.b64encode(content).decode()}"
    return {"id": item_id, "is_audio": modality == "audio", "source": source}
