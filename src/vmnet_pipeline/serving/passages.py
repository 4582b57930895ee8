"""What a worker does to find the part of a track that fits a video."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vmnet_pipeline.errors import VmnetError
from vmnet_pipeline.types import SIDES

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

    from vmnet_pipeline.inference.embedder import Embedder
    from vmnet_pipeline.passages.scoring import Passage
    from vmnet_pipeline.passages.tracks import TrackStructure
    from vmnet_pipeline.types import ItemFeature, Side

N_PASSAGES = 3
COVERED = 0.9  # share of a track that its features must describe; often they are of its beginning only


def find_passages(
    embedder: Embedder, video_path: str, music_path: str, load: Callable[[Side], ItemFeature | None]
) -> dict[str, Any]:
    """The best passages of a track for a video, and what is drawn of both, as plain data.

    Args:
        embedder: The network, whose sandbox reads the files.
        video_path: The video.
        music_path: The track.
        load: The feature of one side, None if there is none.

    Raises:
        MediaError: A file cannot be used.
    """
    import numpy as np

    from vmnet_pipeline.params import PassageParams, PieceParams
    from vmnet_pipeline.passages.scoring import Pair, choose_passages, describe_passage
    from vmnet_pipeline.passages.tracks import ENERGY_HZ, find_structure, follow_track
    from vmnet_pipeline.passages.videos import follow_video
    from vmnet_pipeline.search.reranking import PIECE_S

    video = follow_video(video_path, embedder.sandbox)
    track = find_structure(follow_track(music_path, embedder.sandbox))
    pieces = PieceParams.model_validate({"window_s": PIECE_S, "hop_s": PIECE_S})
    cosines = _compare(embedder, load, track.duration_s)
    pair = Pair(track, video, np.zeros((1, 1)) if cosines is None else cosines, pieces)
    found = choose_passages(pair, PassageParams.model_validate({}), top_k=N_PASSAGES)
    film = {"duration_s": round(video.duration_s, 3), "cuts_s": _round(video.cuts_s), "motion": _round(video.motion)}
    return {
        "passages": [
            _to_plain(describe_passage(own) | {"words": _explain(own, track, is_compared=cosines is not None)})
            for own in found
        ],
        "track": _describe_track(track),
        "video": film,
        "energy_hz": ENERGY_HZ,
        "warnings": [*track.warnings, *video.warnings],
    }


def _explain(passage: Passage, track: TrackStructure, *, is_compared: bool) -> str:
    from vmnet_pipeline.passages.choice import explain_passage

    words = explain_passage(passage, track)
    return words if is_compared else words.partition(", ")[2] or "nothing speaks for another part"


def _compare(embedder: Embedder, load: Callable[[Side], ItemFeature | None], duration_s: float) -> np.ndarray | None:
    """Cosines of the pieces of both; None if their features cannot be cut, or describe a part of the track only."""
    from vmnet_pipeline.search.reranking import PIECE_S

    cut = {}
    try:
        for side in SIDES:
            feature = load(side)
            if feature is None:
                return None
            cut[side] = embedder.cut_pieces(side, PIECE_S).embed(feature)
    except VmnetError:  # a passage without agreement is still one
        return None
    is_whole = len(cut["music"]) * PIECE_S >= COVERED * duration_s
    return cut["video"] @ cut["music"].T if is_whole else None


def _describe_track(track: TrackStructure) -> dict[str, Any]:
    return {
        "duration_s": round(track.duration_s, 3),
        "start_s": round(track.start_s, 3),
        "end_s": round(track.end_s, 3),
        "tempo_bpm": round(track.tempo_bpm, 1),
        "beats_s": _round(track.beats_s),
        "bars_s": _round(track.bars_s),
        "sections_s": _round(track.sections_s),
        "energy_db": _round(track.energy_db),
    }


def _to_plain(value: Any) -> Any:
    """Numbers of NumPy as those of Python."""
    if isinstance(value, dict):
        return {name: _to_plain(own) for name, own in value.items()}
    return value.item() if hasattr(value, "item") else value


def _round(values: np.ndarray) -> list[float]:
    return [round(float(value), 3) for value in values]
