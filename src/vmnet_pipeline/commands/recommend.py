"""What `kedro recommend` does: find the index of a collection, search it, print a table or JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vmnet_pipeline.features.forms import Side
    from vmnet_pipeline.search.embedder import Embedder
    from vmnet_pipeline.search.recommendation import Recommendation
    from vmnet_pipeline.search.reranking import Reranking

MODELS = Path("data/06_models")
OUTPUT = Path("data/07_model_output")
FEATURES = Path("data/04_feature")
WIDTHS = {"id": 28, "title": 28, "group": 16, "licence": 12, "tags": 36}


@dataclass(frozen=True, slots=True)
class Places:
    """Where the parts of one collection and variant are.

    Attributes:
        checkpoint: Folder of the checkpoint.
        output: Folder with `music_index` and `video_index`.
        features: Folder with the feature stores of the collection.
    """

    checkpoint: Path
    output: Path
    features: Path


def locate(collection: str, variant: str, checkpoint: Path | None, index_dir: Path | None) -> Places:
    """The usual places of a collection, or those that are given."""
    return Places(
        checkpoint or MODELS / collection / variant / "checkpoint",
        index_dir or OUTPUT / collection / variant,
        FEATURES / collection,
    )


def make_ranking(
    video: Path | None,
    music: Path | None,
    places: Places,
    weights_dir: Path,
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
    from vmnet_pipeline.retrieval.index_files import load_index
    from vmnet_pipeline.search.embedder import Embedder
    from vmnet_pipeline.search.recommendation import answering_side, recommend

    query: Side = "music" if music else "video"
    side = answering_side(query, same_side=same_side)
    index = load_index(places.output / f"{side}_index")
    embedder = Embedder.load(places.checkpoint, weights_dir=weights_dir)
    reranking = None if rerank is None else _plan_reranking(embedder, places, side, rerank)
    return recommend(embedder, index, music or video or "", query, top_k=top_k, filters=filters, reranking=reranking)


def _plan_reranking(embedder: Embedder, places: Places, side: Side, weight: float) -> Reranking:
    from vmnet_pipeline.errors import CheckpointError
    from vmnet_pipeline.features.store import FeatureStore
    from vmnet_pipeline.search.embedder import MODALITIES
    from vmnet_pipeline.search.reranking import Reranking

    fingerprint = embedder.checkpoint.fingerprints.get(MODALITIES[side])
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
