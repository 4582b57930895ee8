"""The columns of every table that is stored, with their dtypes."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from vmnet_pipeline.errors import IngestError

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

MANIFEST_COLUMNS: dict[str, str] = {
    "id": "str",
    "status": "str",
    "reason": "str",
    "error": "str",
    "duplicate_of": "str",
    "group": "str",
    "video_path": "str",
    "video_checksum": "str",
    "video_container": "str",
    "video_codec": "str",
    "video_duration_s": "float64",
    "width": "Int32",
    "height": "Int32",
    "frame_rate_hz": "float64",
    "video_warning": "str",
    "audio_path": "str",
    "audio_checksum": "str",
    "audio_container": "str",
    "audio_codec": "str",
    "audio_duration_s": "float64",
    "sample_rate_hz": "Int32",
    "channels": "Int32",
    "audio_warning": "str",
}
"""The manifest: one row per item. `status` is ok, failed or duplicate; `reason` and `error` say why it is not ok.

`video_warning` and `audio_warning` describe faults of a side that is used anyway."""


def check_manifest(manifest: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Check a manifest and order its columns.

    Raises:
        IngestError: A column is missing or of another type, an id is repeated or empty, or a status is unknown.
    """
    from pandera.errors import SchemaError

    try:
        checked: pd.DataFrame = _manifest_schema().validate(manifest)
    except SchemaError as error:
        reason = " ".join(str(error).split())[:300]
        raise IngestError(
            f"{path} is not a valid manifest ({reason}). Run `kedro run --pipeline ingest` again."
        ) from error
    return checked[list(MANIFEST_COLUMNS)]


@functools.cache
def _manifest_schema() -> Any:
    from pandera.pandas import Check, Column, DataFrameSchema

    columns = {name: Column(dtype, nullable=dtype != "str") for name, dtype in MANIFEST_COLUMNS.items()}
    columns["id"] = Column("str", Check.str_length(min_value=1), unique=True)
    columns["status"] = Column("str", Check.isin(["ok", "failed", "duplicate"]))
    return DataFrameSchema(columns)
