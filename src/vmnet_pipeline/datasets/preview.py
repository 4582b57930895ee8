"""Tables that Kedro-Viz shows of a dataset: a few rows, as plain JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

PREVIEW_ROWS = 10


def preview_rows(frame: pd.DataFrame) -> dict[str, Any]:
    """A short table as Kedro-Viz takes it: `index`, `columns` and `data`; what is missing is None."""
    table: dict[str, Any] = json.loads(frame.to_json(orient="split"))
    return table
