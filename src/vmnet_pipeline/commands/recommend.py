"""`kedro recommend`: search the index of a collection and print a table or JSON."""

from __future__ import annotations

import json
import textwrap
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vmnet_pipeline.commands.collection import choose_collection
from vmnet_pipeline.commands.errors import report_errors
from vmnet_pipeline.commands.project import ProjectCommand

if TYPE_CHECKING:
    from vmnet_pipeline.search.recommendation import Ranking, Recommendation
    from vmnet_pipeline.types import CollectionPlaces, Side

WIDTHS = {"id": 28, "title": 28, "group": 16, "licence": 12, "tags": 36}


@click.command(name="recommend", cls=ProjectCommand, short_help="Find music for a video, or videos for music.")
@click.argument("video", required=False, type=click.Path(path_type=Path))
@click.option("--music", type=click.Path(path_type=Path), default=None, help="Recommend videos for this music instead.")
@click.option("--same-side", is_flag=True, help="More like this: videos like VIDEO, or music like the music.")
@click.option("--top-k", type=click.IntRange(1), default=10, show_default=True, help="Number of results.")
@click.option(
    "--rerank",
    type=click.FloatRange(0.0, 1.0),
    default=None,
    help="Re-rank the 50 best piece by piece: share of the agreement over time in the score.  [default: off]",
)
@click.option(
    "--variety",
    type=click.FloatRange(0.0, 1.0),
    default=0.0,
    help="Choose results of the 50 best that differ from each other: share of unlikeness.  [default: off]",
)
@click.option("--filter", "filters", multiple=True, help="Only items like this: group=A, tag=rock, 'duration<60'.")
@click.option("--exclude", multiple=True, metavar="ID", help="Leave this item out, e.g. the query itself; repeatable.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
@choose_collection
@report_errors()
def recommend_items(
    video: Path | None, music: Path | None, same_side: bool, as_json: bool, places: CollectionPlaces, **options: Any
) -> None:
    """Recommend music of a collection for VIDEO, best first; with --music FILE, videos for that music.

    VIDEO and FILE are local files. Embed and index the collection first: kedro run --pipelines=embed,index
    """
    if (video is None) == (music is None):
        raise click.UsageError("give either a VIDEO or --music FILE")
    from vmnet_pipeline.search.recommendation import target_side

    path = music or video or Path()
    query: Side = "music" if music else "video"
    ranking = make_ranking(path, query, places, same_side=same_side, **options)
    direction = f"{query}_to_{target_side(query, same_side=same_side)}"
    click.echo(format_json(path, direction, ranking) if as_json else format_table(ranking))


def make_ranking(
    path: Path, query: Side, places: CollectionPlaces, *, same_side: bool, rerank: float | None, **options: Any
) -> Ranking:
    """Rank the items of a collection for one side of a file.

    Raises:
        VmnetError: A file, the checkpoint or the index is missing or cannot be used.
    """
    from vmnet_pipeline.inference.embedder import Embedder
    from vmnet_pipeline.inference.reasons import can_explain
    from vmnet_pipeline.search.index_files import load_index
    from vmnet_pipeline.search.recommendation import recommend, target_side
    from vmnet_pipeline.search.reranking import open_features

    side = target_side(query, same_side=same_side)
    index = load_index(places.output / f"{side}_index")
    embedder = Embedder.load(places.checkpoint, weights_dir=places.weights_dir)
    wants_store = rerank is not None or can_explain(embedder)
    store = open_features(embedder, places.features, side) if wants_store and places.features else None
    return recommend(embedder, index, path, query, same_side=same_side, rerank=rerank, store=store, **options)


def format_json(path: Path, direction: str, ranking: Ranking) -> str:
    """Format results for programs: `query`, `direction`, `remark`, and `results`: rank, id, score, fit, metadata."""
    results = [asdict(item) for item in ranking]
    content = {"query": str(path), "direction": direction, "remark": ranking.remark, "results": results}
    return json.dumps(content, ensure_ascii=False, indent=2)


def format_table(ranking: Ranking) -> str:
    """Format results for people: one line each, without empty columns, and the remark on them."""
    if not ranking:
        return "No item matches the filters."
    rows = [_list_cells(item) for item in ranking]
    columns = [name for name in rows[0] if any(row[name] for row in rows)]
    table = [columns, *([row[name] for name in columns] for row in rows)]
    widths = [max(len(line[place]) for line in table) for place in range(len(columns))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in table]
    return "\n".join([*lines, *textwrap.wrap(ranking.remark, 100)])


def _list_cells(item: Recommendation) -> dict[str, str]:
    """Column to text; empty for what is not known."""
    cells, seconds = {"id": item.id, **item.metadata}, item.metadata.get("duration_s")
    return {
        "rank": str(item.rank),
        "score": f"{item.score:.3f}",
        "fit": "" if item.fit is None else f"{100 * item.fit:.1f} %",
        "above": "" if item.percentile is None else f"{item.percentile:.1f} %",
        **{name: _cut(cells.get(name), width) for name, width in WIDTHS.items()},
        "duration": f"{int(seconds) // 60}:{int(seconds) % 60:02d}" if seconds else "",
        "reasons": item.reasons,
    }


def _cut(value: Any, width: int) -> str:
    text = str(value or "")
    return text if len(text) <= width else f"{text[: width - 3]}..."
