"""`kedro recommend`: search the index of a collection, print a table or JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vmnet_pipeline.commands.collection import Places, choose_collection
from vmnet_pipeline.commands.errors import tell_errors
from vmnet_pipeline.commands.project import ProjectCommand

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vmnet_pipeline.inference.embedder import Embedder
    from vmnet_pipeline.search.recommendation import Recommendation
    from vmnet_pipeline.search.reranking import Reranking
    from vmnet_pipeline.types import Side

WIDTHS = {"id": 28, "title": 28, "group": 16, "licence": 12, "tags": 36}


@click.command(name="recommend", cls=ProjectCommand, short_help="Find music for a video, or videos for music.")
@click.argument("video", required=False, type=click.Path(path_type=Path))
@click.option(
    "--music", type=click.Path(path_type=Path), default=None, help="The other direction: videos for this music."
)
@click.option("--same-side", is_flag=True, help="More like this: videos like VIDEO, or music like the music.")
@click.option("--top-k", type=click.IntRange(1), default=10, show_default=True, help="Number of answers.")
@click.option(
    "--rerank",
    type=click.FloatRange(0.0, 1.0),
    default=None,
    help="Compare the 50 best again piece by piece; the share of that agreement in the score.  [default: not]",
)
@click.option("--filter", "filters", multiple=True, help="Only items like this: group=A, tag=rock, 'duration<60'.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
@choose_collection
@tell_errors()
def recommend_items(
    video: Path | None,
    music: Path | None,
    same_side: bool,
    top_k: int,
    rerank: float | None,
    filters: tuple[str, ...],
    as_json: bool,
    places: Places,
) -> None:
    """Recommend music of a collection for VIDEO, best first; with --music FILE, videos for that music.

    VIDEO and FILE are files on this machine.

    The collection is embedded and indexed before: kedro run --pipelines=embed,index
    """
    if (video is None) == (music is None):
        raise click.UsageError("give either a VIDEO or --music FILE")
    ranking = make_ranking(video, music, places, top_k, filters, same_side=same_side, rerank=rerank)
    click.echo(format_json(video, music, ranking, same_side=same_side) if as_json else format_table(ranking))


def make_ranking(
    video: Path | None,
    music: Path | None,
    places: Places,
    top_k: int,
    filters: Sequence[str],
    *,
    same_side: bool = False,
    rerank: float | None = None,
) -> list[Recommendation]:
    """Music for a video, or videos for a piece of music; with `same_side` videos like the video, music like the music.

    `rerank` is the share of agreement over time in the score of the best answers; None leaves it out.

    Raises:
        VmnetError: A file, the checkpoint or the index is missing or cannot be used.
    """
    from vmnet_pipeline.inference.embedder import Embedder
    from vmnet_pipeline.search.index_files import load_index
    from vmnet_pipeline.search.recommendation import answering_side, recommend

    query: Side = "music" if music else "video"
    side = answering_side(query, same_side=same_side)
    index = load_index(places.output / f"{side}_index")
    embedder = Embedder.load(places.checkpoint, weights_dir=places.weights)
    reranking = None if rerank is None else _plan_reranking(embedder, places, side, rerank)
    return recommend(embedder, index, music or video or "", query, top_k=top_k, filters=filters, reranking=reranking)


def _plan_reranking(embedder: Embedder, places: Places, side: Side, weight: float) -> Reranking:
    from vmnet_pipeline.errors import CheckpointError
    from vmnet_pipeline.features.store import FeatureStore
    from vmnet_pipeline.search.reranking import Reranking
    from vmnet_pipeline.types import MODALITY_OF

    fingerprint = embedder.checkpoint.fingerprints.get(MODALITY_OF[side])
    if fingerprint is None:
        raise CheckpointError(
            f"the checkpoint does not say which {side} features it was trained on, so those of the collection cannot "
            "be compared piece by piece; leave --rerank out"
        )
    return Reranking(side, FeatureStore(places.features / fingerprint.backend), weight)


def format_json(
    video: Path | None, music: Path | None, ranking: Sequence[Recommendation], *, same_side: bool = False
) -> str:
    """For programs: `query`, `direction`, and `results` with rank, id, score and metadata."""
    from vmnet_pipeline.search.recommendation import answering_side

    query: Side = "music" if music else "video"
    content = {
        "query": str(music or video),
        "direction": f"{query}_to_{answering_side(query, same_side=same_side)}",
        "results": [asdict(item) for item in ranking],
    }
    return json.dumps(content, ensure_ascii=False, indent=2)


def format_table(ranking: Sequence[Recommendation]) -> str:
    """For people: one line per answer; columns that are empty throughout are left out."""
    if not ranking:
        return "Nothing in the index meets the filters."
    columns = [name for name in WIDTHS if name == "id" or any(item.metadata.get(name) for item in ranking)]
    has_duration = any(item.metadata.get("duration_s") for item in ranking)
    rows = [["rank", "score", *columns, *(["duration"] if has_duration else [])]]
    for item in ranking:
        cells = {"id": item.id, **item.metadata}
        texts = [_cut(cells.get(name), WIDTHS[name]) for name in columns]
        durations = [_format_duration(item.metadata.get("duration_s"))] if has_duration else []
        rows.append([str(item.rank), f"{item.score:.3f}", *texts, *durations])
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _cut(value: Any, width: int) -> str:
    text = str(value or "")
    return text if len(text) <= width else f"{text[: width - 3]}..."


def _format_duration(seconds: float | None) -> str:
    return "" if seconds is None else f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
