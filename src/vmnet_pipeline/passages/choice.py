"""Choose music for a video: tracks of libraries by their pieces, and of the best ones the part that fits."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from vmnet_pipeline.errors import MediaError, SearchIndexError
from vmnet_pipeline.inference.libraries import embed_whole_file
from vmnet_pipeline.passages.scoring import Pair, choose_passages, describe_passage, rank_by_pieces
from vmnet_pipeline.passages.tracks import find_structure, follow_track
from vmnet_pipeline.passages.videos import follow_video, list_scenes
from vmnet_pipeline.search.libraries import search_libraries

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vmnet_pipeline.inference.embedder import Embedder
    from vmnet_pipeline.params import PassageParams
    from vmnet_pipeline.passages.scoring import Passage
    from vmnet_pipeline.passages.tracks import TrackStructure
    from vmnet_pipeline.passages.videos import VideoStructure
    from vmnet_pipeline.search.filters import Filter
    from vmnet_pipeline.search.libraries import Library, LibraryHit

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answer:
    """One track, and its part for the video.

    Attributes:
        hit: The track, with the score of its pieces.
        passages: Its best passage for each segment of the video, in order; one for the whole video by default.
        structure: What is known of the track.
    """

    hit: LibraryHit
    passages: tuple[Passage, ...]
    structure: TrackStructure

    @property
    def score(self) -> float:
        """Mean score of its passages, weighted by their lengths in the video."""
        lengths = [passage.video_end_s - passage.video_start_s for passage in self.passages]
        return sum(n * p.score for n, p in zip(lengths, self.passages, strict=True)) / max(sum(lengths), 1e-9)

    @property
    def title(self) -> str:
        """Title, else id."""
        return str(self.hit.metadata.get("title") or self.hit.id)


@dataclass(frozen=True)
class Choice:
    """The answers for one video, best first.

    Attributes:
        video: Structure of the video.
        answers: At least one.
        warnings: What to know of the video, and tracks that were left out.
    """

    video: VideoStructure
    answers: tuple[Answer, ...]
    warnings: tuple[str, ...] = field(default=())


def choose_music(
    embedder: Embedder,
    libraries: Sequence[Library],
    path: str,
    params: PassageParams,
    *,
    by_scene: bool = False,
    filters: Sequence[Filter | str] = (),
) -> Choice:
    """Choose music, and its part, for a video.

    Args:
        embedder: The network that indexed the libraries.
        libraries: Their music sides.
        path: The video.
        params: Weights of the terms, and how many tracks are looked at.
        by_scene: Choose a passage for each scene instead of one for the whole video.
        filters: Conditions that every track meets.

    Raises:
        MediaError: The video cannot be used.
        SearchIndexError: No track meets the filters, or none of the best can be read.
    """
    warnings: list[str] = []
    pieces = embed_whole_file(embedder, "video", path, libraries[0].pieces, warnings=warnings)
    video = follow_video(path, embedder.sandbox)
    warnings += [text for text in video.warnings if text not in warnings]
    hits = search_libraries(
        libraries, pieces, rank_by_pieces, n_candidates=params.n_candidates, top_k=params.n_analysed, filters=filters
    )
    if not hits:
        raise SearchIndexError("no track of the libraries meets the filters, or they hold no music; relax the filters")
    segments = list_scenes(video, params.min_scene_s) if by_scene else [(0.0, video.duration_s)]
    answers = []
    for hit in hits:
        try:
            structure = find_structure(follow_track(hit.path, embedder.sandbox))
        except MediaError as error:
            warnings.append(f"{hit.id} is left out: {error}")
            continue
        pair = Pair(structure, video, pieces @ hit.pieces.T, hit.library.pieces)
        passages = [choose_passages(pair, params, segment)[0] for segment in segments]
        answers.append(Answer(hit, tuple(passages), structure))
    if not answers:
        raise SearchIndexError("; ".join(warnings) + "; none of the best tracks can be read")
    return Choice(video, tuple(sorted(answers, key=lambda answer: -answer.score)), tuple(warnings))


def describe_answer(answer: Answer) -> dict[str, Any]:
    """Plain data of an answer, for programs."""
    structure = answer.structure
    return {
        "id": answer.hit.id,
        "library": answer.hit.library.place,
        "path": answer.hit.path,
        "score": round(answer.score, 4),
        "pieces_score": round(answer.hit.score, 4),
        "metadata": answer.hit.metadata,
        "passages": [describe_passage(passage) for passage in answer.passages],
        "duration_s": round(structure.duration_s, 3),
        "tempo_bpm": round(structure.tempo_bpm, 1),
        "meter": structure.meter,
        "beats_s": [round(float(beat), 3) for beat in structure.beats_s],
        "bars_s": [round(float(bar), 3) for bar in structure.bars_s],
        "sections_s": [round(float(section), 3) for section in structure.sections_s],
        "warnings": list(structure.warnings),
    }


def describe_video(video: VideoStructure) -> dict[str, Any]:
    """Plain data of a video: its length and its cuts."""
    return {"duration_s": round(video.duration_s, 3), "cuts_s": [round(float(cut), 3) for cut in video.cuts_s]}


def explain_passage(passage: Passage, structure: TrackStructure) -> str:
    """In words, why a passage was chosen: its terms that speak for it."""
    terms = asdict(passage.terms)
    starts = {1.0: "begins where a section begins", 0.6: "begins on a bar line", 0.3: "begins on a beat"}
    ends = {1.0: "ends with a phrase, a section or the track", 0.5: "ends on a bar line"}
    agreement = f"agreement over time {terms['agreement']:.2f}"
    words = [agreement, starts.get(terms["start"], ""), ends.get(terms["end"], "")]
    if abs(terms["energy"]) >= 0.1:
        verb = "follows" if terms["energy"] > 0 else "runs against"
        words.append(f"its loudness {verb} the motion ({terms['energy']:+.2f})")
    if terms["cuts"]:
        words.append(f"cuts on beats {terms['cuts']:+.2f} beyond chance")
    if passage.repeats:
        words.append("it is shorter than the video and repeats")
    if structure.tempo_bpm:
        words.append(f"{structure.tempo_bpm:.0f} BPM")
    return ", ".join(filter(None, words))
