"""Which parameters are names or places: `collection=007` is the text `007`, whatever YAML makes of it."""

from __future__ import annotations

from typing import Any

TEXT_PARAMETERS = frozenset({
    *("audio_dir", "cache_dir", "data_root", "media_dir", "pairs_dir", "save_dir", "split_dir", "summaries_dir"),
    *("test_data_dir", "train_data_dir", "video_dir", "weights_dir"),
    *("test_csv_path", "train_csv_path", "metadata", "checkpoint", "start_from"),
    *("address", "against", "collection", "music_tower", "video_tower"),
})  # fmt: skip
"""Last parts of their names; no other parameter has such a part."""


def is_text(name: str) -> bool:
    """Whether a parameter, e.g. `media_dir` or `extract.executor.address`, is a name or a place."""
    return name.strip().rpartition(".")[2] in TEXT_PARAMETERS


def write_out(params: dict[str, Any]) -> dict[str, Any]:
    """Parameters with the text of what a caller gave as a number where a name or a place is meant."""
    return {name: _write_value(str(name), value) for name, value in params.items()}


def _write_value(name: str, value: Any) -> Any:
    if isinstance(value, dict):
        return write_out(value)
    is_scalar = isinstance(value, int | float) and not isinstance(value, bool)
    return str(value) if is_text(name) and is_scalar else value
