"""The columns of every table that is stored, with their dtypes."""

from __future__ import annotations

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
    "audio_path": "str",
    "audio_checksum": "str",
    "audio_container": "str",
    "audio_codec": "str",
    "audio_duration_s": "float64",
    "sample_rate_hz": "Int32",
    "channels": "Int32",
}
"""The manifest: one row per item. `status` is ok, failed or duplicate; `reason` and `error` say why it is not ok."""
