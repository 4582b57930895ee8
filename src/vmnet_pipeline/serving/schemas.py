"""What a request may say and what an answer holds; also the source of the OpenAPI document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from vmnet_pipeline.serving.errors import RefusedError, shorten
from vmnet_pipeline.serving.middleware import MAX_KEY_LENGTH
from vmnet_pipeline.types import Side

if TYPE_CHECKING:
    import numpy as np

MAX_FILTERS = 16
MAX_PLACE = 100
"""Characters of the name of a key that is wrong; it may be as long as the request."""
MAX_FILTER_LENGTH = 200
RESULT: dict[str, Any] = {
    "rank": 1, "id": "0104", "score": 0.83, "media": "../v1/items/0104/media?side=music",
    "metadata": {"title": "0104", "group": "song0052", "licence": "", "tags": "electronic, techno", "duration_s": 11.8},
}  # fmt: skip


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Query(_Body):
    """One item: by the id that it has in the collection, by features, or by its embedding."""

    id: str | None = Field(None, min_length=1, max_length=200, description="Id of an item of the collection.")
    features: list[Any] | None = Field(
        None, description="Features of one item as nested lists, e.g. (T, 1280) of EfficientNet; pooled ones: (1280,)."
    )
    embedding: list[float] | None = Field(None, description="What `/v1/embeddings` gave; to search again with filters.")
    pooled: bool = Field(False, description="Whether the features are pooled over time already.")
    query: Side = Field("video", description="Which side of the item is looked at.")

    @model_validator(mode="after")
    def _check_one(self) -> Query:
        if sum(given is not None for given in (self.id, self.features, self.embedding)) != 1:
            raise ValueError("give one of id, features and embedding")
        return self


class Search(Query):
    """One item, and what is wanted of the collection."""

    same_side: bool = Field(
        False, description="More like this: answers of the side that is looked at, without the item itself."
    )
    top_k: int = Field(10, ge=1, description="How many answers.")
    filters: list[Annotated[str, Field(max_length=MAX_FILTER_LENGTH)]] = Field(
        default_factory=list, max_length=MAX_FILTERS, description="Conditions, e.g. `group=jazz`, `duration<60`."
    )
    rerank: float | None = Field(
        None,
        ge=0.0,
        le=1.0,
        description="Re-rank the 50 best piece by piece: share of the agreement over time in the score. Default: off.",
    )


class Session(_Body):
    """An API key, traded for a cookie."""

    key: str = Field(max_length=MAX_KEY_LENGTH)


class Recommended(BaseModel):
    """One answer."""

    model_config = ConfigDict(json_schema_extra={"example": RESULT})

    rank: int = Field(description="1 is the best.")
    id: str
    score: float = Field(description="Cosine similarity, -1 to 1.")
    metadata: dict[str, Any] = Field(description="Title, group, licence, tags, duration in seconds, ...")
    media: str | None = Field(description="Where its media are, relative to the address of the request; or null.")


class Recommendations(BaseModel):
    """The best items, of the other side or of the same."""

    direction: Literal["video_to_music", "music_to_video", "video_to_video", "music_to_music"]
    version: str = Field(description="Version of the search index that answered.")
    results: list[Recommended]
    warnings: list[str] = Field([], description="Of an uploaded file, e.g. that only a part of it could be read.")


class Embedding(BaseModel):
    """An embedding of unit length."""

    side: Side
    checkpoint: str = Field(description="Digest of the network.")
    embedding: list[float]
    warnings: list[str] = Field([], description="Of an uploaded file, e.g. that only a part of it could be read.")


class Item(BaseModel):
    """What is known of one item, side by side."""

    id: str
    metadata: dict[str, dict[str, Any]]
    media: dict[str, str | None] = Field(description="Where they are, relative to the address of the request.")


class ErrorDetail(BaseModel):
    """What is wrong."""

    code: str = Field(description="A short stable slug.")
    message: str = Field(description="A sentence for people.")


class ErrorBody(BaseModel):
    """The form of every error."""

    error: ErrorDetail


SEARCH_EXAMPLES = {
    "by id": {"value": {"id": "0001", "query": "video", "top_k": 5, "filters": ["tag=electronic", "duration<60"]}},
    "more like this": {"value": {"id": "0001", "query": "music", "same_side": True}},
    "by pooled features": {"value": {"features": [0.1, 0.2, 0.3], "pooled": True, "query": "music"}},
}
UPLOAD_PARAMETERS = [
    {"name": "query", "in": "query", "schema": {"type": "string", "enum": ["video", "music"], "default": "video"},
     "description": "Which side of an uploaded file is looked at."},
]  # fmt: skip
SEARCH_PARAMETERS = [
    *UPLOAD_PARAMETERS,
    {"name": "same_side", "in": "query", "schema": {"type": "boolean", "default": False},
     "description": "More like this: answers of the side that is looked at."},
    {"name": "top_k", "in": "query", "schema": {"type": "integer", "minimum": 1, "default": 10}},
    {"name": "filter", "in": "query", "schema": {"type": "array", "items": {"type": "string"}},
     "description": "May be given several times.", "example": ["duration<60"]},
    {"name": "rerank", "in": "query", "schema": {"type": "number", "minimum": 0, "maximum": 1},
     "description": "Re-rank the 50 best piece by piece; share of the agreement over time in the score."},
]  # fmt: skip


def describe_request(model: type[Query], parameters: list[dict[str, Any]]) -> dict[str, Any]:
    """The part of the OpenAPI document on a body that may be JSON or a media file."""
    examples = {
        name: {"value": {key: value for key, value in example["value"].items() if key in model.model_fields}}
        for name, example in SEARCH_EXAMPLES.items()
    }
    file = {"type": "string", "format": "binary"}
    form = {"type": "object", "properties": {"file": file}, "required": ["file"]}
    content = {
        "application/json": {"schema": model.model_json_schema(), "examples": examples},
        "multipart/form-data": {"schema": form},
        "application/octet-stream": {"schema": file},
    }
    return {"parameters": parameters, "requestBody": {"required": True, "content": content}}


def read_query(model: type[BaseModel], values: bytes | dict[str, Any]) -> Any:
    """Check a JSON body, or the parameters of an upload.

    Raises:
        RefusedError: 422, with the first thing that is wrong.
    """
    if isinstance(values, bytes) and not values.strip():
        raise RefusedError(422, "bad_request", "The body is empty; it has to be a JSON object.")
    try:
        return model.model_validate_json(values) if isinstance(values, bytes) else model.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = shorten(".".join(str(part) for part in first["loc"][:2]), MAX_PLACE)
        raise RefusedError(422, "bad_request", f"{place}: {first['msg']}".removeprefix(": ")) from error


def read_features(values: list[Any]) -> np.ndarray:
    """Nested lists of numbers as an array of float32.

    Raises:
        RefusedError: 422.
    """
    import numpy as np

    try:
        with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused as that
            return np.asarray(values, np.float32)
    except (ValueError, TypeError, OverflowError) as error:
        sentence = "Features are nested lists of numbers, all of one length at each depth."
        raise RefusedError(422, "bad_features", sentence) from error
