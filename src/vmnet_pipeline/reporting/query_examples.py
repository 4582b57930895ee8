"""The best and the worst queries of an evaluation, to look at and to listen to."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vmnet_pipeline.reporting.labels import DIRECTION_LABELS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from vmnet_pipeline.types import Modality

N_EXTREMES = 5
N_ANSWERS = 3
_SIDES: dict[str, tuple[Modality, Modality]] = {
    "music_to_video": ("audio", "video"),
    "video_to_music": ("video", "audio"),
}
_MEDIA_TYPES: dict[Modality, str] = {"audio": "audio/mpeg", "video": "image/jpeg"}


@dataclass(frozen=True, slots=True)
class Query:
    """One query: its id, the rank of its best relevant item, and the first answers."""

    id: str
    rank: float
    answers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class QueryTable:
    """The best or the worst queries of one direction."""

    title: str
    direction: str
    queries: tuple[Query, ...]

    @property
    def sides(self) -> tuple[Modality, Modality]:
        """What is asked with, and what is answered."""
        return _SIDES[self.direction]


def choose_queries(ranks: Sequence[Mapping[str, Any]]) -> list[QueryTable]:
    """Best and worst queries of each direction; a query is never in both tables.

    Args:
        ranks: `Evaluation.query_rows`.
    """
    tables = []
    for direction, label in DIRECTION_LABELS.items():
        rows = [row for row in ranks if row["direction"] == direction]
        ordered = [_make_query(row) for row in sorted(rows, key=lambda row: (row["rank"], row["id"]))]
        n_shown = min(N_EXTREMES, len(ordered) // 2)
        parts = {"Best queries": ordered[:n_shown], "Worst queries": ordered[len(ordered) - n_shown :][::-1]}
        tables += [QueryTable(f"{title}, {label}", direction, tuple(shown)) for title, shown in parts.items() if shown]
    return tables


def _make_query(row: Mapping[str, Any]) -> Query:
    answers = row.get("top_ids")
    return Query(str(row["id"]), row["rank"], () if answers is None else tuple(map(str, answers))[:N_ANSWERS])


def list_shown(tables: Sequence[QueryTable]) -> list[tuple[Modality, str]]:
    """Sides of items that the tables show, each once: queries, their own other sides, and the first answers."""
    return list(dict.fromkeys(side for table in tables for side in _list_sides(table)))


def _list_sides(table: QueryTable) -> Iterator[tuple[Modality, str]]:
    asked, answered = table.sides
    for query in table.queries:
        yield asked, query.id
        for item_id in (query.id, *query.answers):
            yield answered, item_id


def lay_out_queries(
    tables: Sequence[QueryTable], previews: Mapping[tuple[Modality, str], bytes]
) -> list[dict[str, Any]]:
    """What the template shows of the tables.

    Args:
        tables: What `choose_queries` gives.
        previews: What `media.preview.make_previews` gives; what is not in it is shown by its id alone.
    """
    return [
        {
            "title": table.title,
            "rows": [
                {
                    "rank": f"{query.rank:g}",
                    "query": _lay_out_item(table.sides[0], query.id, previews),
                    "right": _lay_out_item(table.sides[1], query.id, previews),
                    "answers": [_lay_out_item(table.sides[1], item_id, previews) for item_id in query.answers],
                }
                for query in table.queries
            ],
        }
        for table in tables
    ]


def _lay_out_item(
    side: Modality, item_id: str, previews: Mapping[tuple[Modality, str], bytes]
) -> dict[str, str | bool | None]:
    content = previews.get((side, item_id))
    source = None if content is None else f"data:{_MEDIA_TYPES[side]};base64,{base64.b64encode(content).decode()}"
    return {"id": item_id, "is_sound": side == "audio", "source": source}
