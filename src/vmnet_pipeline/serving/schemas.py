"""Schemas of requests and responses; the OpenAPI document is made from them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from vmnet_pipeline.errors import describe_validation
from vmnet_pipeline.search.words import DEFAULT_WEIGHT
from vmnet_pipeline.serving.auth import MAX_KEY_LENGTH
from vmnet_pipeline.serving.errors import RefusedError
from vmnet_pipeline.storage.names import normalise
from vmnet_pipeline.types import Side
from vmnet_pipeline.words.asking import MAX_TEXT

if TYPE_CHECKING:
    import numpy as np

MAX_FILTERS = 16
MAX_FILTER_LENGTH = 200
RESULT: dict[str, Any] = {
    "rank": 1, "id": "0104", "score": 0.83, "fit": 0.21, "percentile": 99.4,
    "media": "../v1/items/0104/media?side=music",
    "metadata": {"title": "0104", "group": "song0052", "licence": "", "tags": "electronic, techno", "duration_s": 11.8},
}  # fmt: skip


def _to_file_name(text: str) -> str:
    """Letters that no system takes for a folder."""
    return "".join(letter for letter in text if letter.isprintable() and letter not in "/\\:") or "video"


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Query(_Body):
    """The item to search with: by id, upload, features or embedding."""

    id: Annotated[str, AfterValidator(normalise)] | None = Field(
        None, min_length=1, max_length=200, description="Id of an item of the collection."
    )
    upload: str | None = Field(
        None,
        min_length=1,
        max_length=64,
        description="`upload` of a response of `/v1/uploads`: stands for a file.",
    )
    features: list[Any] | None = Field(
        None, description="Features of one item as nested lists, e.g. (T, 1280) for EfficientNet, or (1280,) if pooled."
    )
    embedding: list[float] | None = Field(
        None, description="A result of `/v1/embeddings`, to search again with other filters."
    )
    pooled: bool = Field(False, description="Whether the features are already pooled over time.")
    query: Side = Field("video", description="Side of the item to search with; results are of the other one.")

    @property
    def has_item(self) -> bool:
        """Whether there is an item to search with; a search may have words alone."""
        return any(given is not None for given in (self.id, self.upload, self.features, self.embedding))

    @model_validator(mode="after")
    def _check_one(self) -> Query:
        n_given = sum(given is not None for given in (self.id, self.upload, self.features, self.embedding))
        if n_given != 1 and not (n_given == 0 and getattr(self, "text", None) is not None):
            raise ValueError("give one of id, upload, features and embedding")
        return self


class Search(Query):
    """A query and its options."""

    same_side: bool = Field(False, description="More like this: search the same side and leave the item itself out.")
    top_k: int = Field(10, ge=1, description="Most results.")
    filters: list[Annotated[str, Field(max_length=MAX_FILTER_LENGTH)]] = Field(
        default_factory=list, max_length=MAX_FILTERS, description="Conditions, e.g. `group=jazz`, `duration<60`."
    )
    rerank: float | None = Field(
        None,
        ge=0.0,
        le=1.0,
        description="Re-rank the 50 best piece by piece: share of the agreement over time in the score. Default: off.",
    )
    variety: float = Field(
        0.0, ge=0.0, le=1.0, description="Choose results of the 50 best that differ: share of unlikeness. Default: off."
    )
    reasons: bool = Field(False, description="Say in words why results fit, where features are descriptors.")
    one_per_group: bool = Field(False, description="Only the best item of each group, such as a song.")
    text: str | None = Field(
        None,
        max_length=MAX_TEXT,
        description="Words for what is wanted, alone or with an item, e.g. `calm piano, no drums`. English.",
    )
    text_weight: float = Field(
        DEFAULT_WEIGHT, ge=0.0, le=1.0, description="With an item and `text`: share of the words in the score."
    )


class Session(_Body):
    """An API key to exchange for a cookie."""

    key: str = Field(max_length=MAX_KEY_LENGTH)


class Recommended(BaseModel):
    """One recommended item."""

    model_config = ConfigDict(json_schema_extra={"example": RESULT})

    rank: int = Field(description="1 is the best.")
    id: str
    score: float = Field(description="Cosine similarity, -1 to 1; with `text`, how well it meets the whole query.")
    fit: float | None = Field(
        None, description="Probability that it belongs to the query, if one of the items does; or null: not known."
    )
    percentile: float | None = Field(
        None, description="Percentage of candidates that do not belong to a query whose score is lower; or null."
    )
    metadata: dict[str, Any] = Field(description="Title, group, licence, tags, duration in seconds, ...")
    reasons: str = Field("", description="Words for what raised the score, if asked for and known; may be empty.")
    media: str | None = Field(description="Link to its media, relative to the URL of the request; or null.")


class Recommendations(BaseModel):
    """Ranked items."""

    direction: Literal[
        "video_to_music", "music_to_video", "video_to_video", "music_to_music", "text_to_music", "text_to_video"
    ]
    version: str = Field(description="Version of the search index.")
    results: list[Recommended]
    remark: str = Field("", description="What to know first, e.g. that nothing in this library fits; may be empty.")
    in_domain: bool | None = Field(
        None, description="Whether the query is like what the network was trained on; or null: not known."
    )
    warnings: list[str] = Field([], description="Of an uploaded file, e.g. that only a part of it could be read.")


class Embedding(BaseModel):
    """An embedding of unit length."""

    side: Side
    checkpoint: str = Field(description="Digest of the network.")
    embedding: list[float]
    warnings: list[str] = Field([], description="Of an uploaded file, e.g. that only a part of it could be read.")


class Item(BaseModel):
    """Metadata and media of one item, by side."""

    id: str
    metadata: dict[str, dict[str, Any]]
    media: dict[str, str | None] = Field(description="Links to its media, relative to the URL of the request; or null.")


class ListedItem(BaseModel):
    """One item of one side."""

    id: str
    metadata: dict[str, Any]
    media: str | None = Field(description="Link to its media, relative to the URL of the request; or null.")


class Items(BaseModel):
    """Some of the items of one side."""

    side: Side
    total: int = Field(description="Items that have the words and meet the filters.")
    items: list[ListedItem]


class Column(BaseModel):
    """A column of the metadata."""

    name: str
    kind: Literal["number", "text"]
    least: float | None = Field(None, description="Of numbers.")
    most: float | None = Field(None, description="Of numbers.")
    values: list[str] | None = Field(None, description="Of texts: the most frequent ones; of `tags`, single tags.")
    n_values: int | None = Field(None, description="Of texts: how many different ones there are.")


class Columns(BaseModel):
    """The metadata that filters can use, by side."""

    music: list[Column]
    video: list[Column]


class Upload(BaseModel):
    """A file that is kept for some minutes."""

    upload: str = Field(description="Stands for the file in searches.")
    keep_s: float = Field(description="Seconds after its last use until it is removed.")
    size_bytes: int
    container: str = Field(description="Name of its format, e.g. `matroska,webm`.")
    audio_s: float | None = Field(description="Length of its audio in seconds, 0 if not known; null: it has none.")
    video_s: float | None = Field(description="Length of its video in seconds, 0 if not known; null: it has none.")


class Source(_Body):
    """One side of an item of the collection, or of a kept upload."""

    id: Annotated[str, AfterValidator(normalise)] | None = Field(None, min_length=1, max_length=200)
    upload: str | None = Field(None, min_length=1, max_length=64)

    @model_validator(mode="after")
    def _check_one(self) -> Source:
        if (self.id is None) == (self.upload is None):
            raise ValueError("give one of id and upload")
        return self


class Mix(_Body):
    """A video and a track."""

    video: Source
    music: Source


Times = Annotated[list[Annotated[float, Field(ge=0.0, le=1e6)]], Field(max_length=5000)]


class RenderOrder(Mix):
    """What to render."""

    start_s: float = Field(0.0, ge=0.0, lt=1e6, description="Where in the track to begin, in seconds.")
    own_sound: Literal["duck", "keep", "mute"] = Field(
        "duck", description="The video's own sound: `duck` keeps it and lowers the music under speech."
    )
    name: Annotated[str, AfterValidator(_to_file_name)] = Field(
        "video", max_length=200, description="Name of the video in the time line."
    )
    bars_s: Times = Field([], description="Bar lines of the track, for one that is shorter than the video.")
    beats_s: Times = Field([], description="Beats of the track, as markers of the time line.")
    cuts_s: Times = Field([], description="Cuts of the video, likewise.")


class Render(BaseModel):
    """A job that renders a video."""

    render: str = Field(description="Stands for the job in addresses.")
    state: Literal["waiting", "running", "done", "failed", "cancelled"]
    progress: float = Field(description="Share that is done, 0-1.")
    before: int = Field(description="Jobs that have to end before it begins.")
    message: str = Field(description="Why it has failed; or empty.")
    size_bytes: int
    loudness_lufs: float | None = Field(description="Of the result.")
    warnings: list[str]


class Terms(BaseModel):
    """The terms of the score of a passage, see docs/soundtrack.md."""

    agreement: float
    start: float
    end: float
    energy: float
    cuts: float


class Passage(BaseModel):
    """A part of a track for a video; times in seconds."""

    start_s: float
    end_s: float
    video_start_s: float
    video_end_s: float
    score: float
    terms: Terms
    repeats: bool = Field(description="Whether the music is shorter than the video.")
    words: str = Field(description="Why it was chosen.")


class Track(BaseModel):
    """Structure of a track; times in seconds."""

    duration_s: float
    start_s: float
    end_s: float
    tempo_bpm: float
    beats_s: list[float]
    bars_s: list[float]
    sections_s: list[float]
    energy_db: list[float] = Field(description="Loudness, `energy_hz` values a second.")


class Film(BaseModel):
    """Structure of a video; times in seconds."""

    duration_s: float
    cuts_s: list[float]
    motion: list[float] = Field(description="`energy_hz` values a second.")


class Passages(BaseModel):
    """The parts of a track that fit a video, best first, and what is known of both."""

    passages: list[Passage]
    track: Track
    video: Film
    energy_hz: float
    warnings: list[str]


class ErrorDetail(BaseModel):
    """Code and message of an error."""

    code: str = Field(description="Short, stable slug.")
    message: str = Field(description="Human-readable sentence.")


class ErrorBody(BaseModel):
    """Body of every error response."""

    error: ErrorDetail


_FILE = {"type": "string", "format": "binary"}
FILE_CONTENT = {
    "multipart/form-data": {"schema": {"type": "object", "properties": {"file": _FILE}, "required": ["file"]}},
    "application/octet-stream": {"schema": _FILE},
}
SEARCH_EXAMPLES = {
    "by id": {"value": {"id": "0001", "query": "video", "top_k": 5, "filters": ["tag=electronic", "duration<60"]}},
    "more like this": {"value": {"id": "0001", "query": "music", "same_side": True}},
    "by words": {"value": {"text": "calm piano, no drums", "top_k": 5}},
    "by id and words": {"value": {"id": "0001", "query": "video", "text": "but darker", "text_weight": 0.3}},
    "by pooled features": {"value": {"features": [0.1, 0.2, 0.3], "pooled": True, "query": "music"}},
}
UPLOAD_PARAMETERS = [
    {"name": "query", "in": "query", "schema": {"type": "string", "enum": ["video", "music"], "default": "video"},
     "description": "Side of the uploaded file to search with."},
]  # fmt: skip
SEARCH_PARAMETERS = [
    *UPLOAD_PARAMETERS,
    {"name": "same_side", "in": "query", "schema": {"type": "boolean", "default": False},
     "description": "More like this: search the same side."},
    {"name": "top_k", "in": "query", "schema": {"type": "integer", "minimum": 1, "default": 10}},
    {"name": "filter", "in": "query", "schema": {"type": "array", "items": {"type": "string"}},
     "description": "Condition on results; repeatable.", "example": ["duration<60"]},
    {"name": "rerank", "in": "query", "schema": {"type": "number", "minimum": 0, "maximum": 1},
     "description": "Re-rank the 50 best piece by piece; share of the agreement over time in the score."},
    {"name": "variety", "in": "query", "schema": {"type": "number", "minimum": 0, "maximum": 1, "default": 0},
     "description": "Choose results of the 50 best that differ; share of unlikeness."},
    {"name": "reasons", "in": "query", "schema": {"type": "boolean", "default": False},
     "description": "Say in words why results fit, where features are descriptors."},
    {"name": "one_per_group", "in": "query", "schema": {"type": "boolean", "default": False},
     "description": "Only the best item of each group, such as a song."},
    {"name": "text", "in": "query", "schema": {"type": "string", "maxLength": MAX_TEXT},
     "description": "Words that count besides the file.", "example": "but darker"},
    {"name": "text_weight", "in": "query",
     "schema": {"type": "number", "minimum": 0, "maximum": 1, "default": DEFAULT_WEIGHT},
     "description": "Share of the words in the score."},
]  # fmt: skip


def describe_request(model: type[Query], parameters: list[dict[str, Any]]) -> dict[str, Any]:
    """Describe a body that may be JSON or a media file, for OpenAPI."""
    examples = {
        name: {"value": kept}
        for name, example in SEARCH_EXAMPLES.items()
        if (kept := {key: value for key, value in example["value"].items() if key in model.model_fields})
    }
    content = {"application/json": {"schema": model.model_json_schema(), "examples": examples}, **FILE_CONTENT}
    return {"parameters": parameters, "requestBody": {"required": True, "content": content}}


def describe_json_request(model: type[BaseModel]) -> dict[str, Any]:
    """Describe a JSON body, for OpenAPI."""
    # `Source` is nested: without references the schema stands for itself.
    schema = model.model_json_schema()
    schema["properties"] |= {name: Source.model_json_schema() for name in ("video", "music")}
    schema.pop("$defs", None)
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def describe_file_request() -> dict[str, Any]:
    """Describe a body that is a media file, for OpenAPI."""
    return {"requestBody": {"required": True, "content": FILE_CONTENT}}


def read_query(model: type[BaseModel], values: bytes | dict[str, Any]) -> Any:
    """Check a JSON body, or the parameters of an upload; 422 with the first error."""
    if isinstance(values, bytes) and not values.strip():
        raise RefusedError(422, "bad_request", "The body is empty; send a JSON object.")
    try:
        return model.model_validate_json(values) if isinstance(values, bytes) else model.model_validate(values)
    except ValidationError as error:
        raise RefusedError(422, "bad_request", describe_validation(error)) from error


def read_features(values: list[Any]) -> np.ndarray:
    """Convert nested lists of numbers to a float32 array; 422 for anything else."""
    import numpy as np

    try:
        with np.errstate(over="ignore"):  # too large values become infinite, which is refused
            return np.asarray(values, np.float32)
    except (ValueError, TypeError, OverflowError) as error:
        sentence = "Features must be nested lists of numbers, all of the same length at each depth."
        raise RefusedError(422, "bad_features", sentence) from error
