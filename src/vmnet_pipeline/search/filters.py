"""Conditions on the metadata of items, e.g. `group=jazz`, `duration<60`, `tag=rock`, `commercial=yes`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vmnet_pipeline.errors import SearchIndexError
from vmnet_pipeline.soundtrack.licences import CLASSES, read_terms
from vmnet_pipeline.storage.names import fold_case

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pandas as pd

ALIASES = {"tag": "tags", "duration": "duration_s"}
LIST_SEPARATOR = ", "
"""Between the values of a column that holds several, such as `tags`."""
_OPERATOR = re.compile(r"[<>=!]")


@dataclass(frozen=True, slots=True)
class Filter:
    """One condition.

    Attributes:
        column: Column of the metadata.
        operator: `=`, `!=`, `<`, `<=`, `>` or `>=`.
        value: What the column is compared with: text for `=` and `!=`, a number for the others.
    """

    column: str
    operator: str
    value: str


def parse_filter(text: str) -> Filter:
    """Read a condition as a user writes it.

    Raises:
        SearchIndexError: The text is not a filter.
    """
    column, operator, value = _split(text)
    if not column or not operator:
        raise SearchIndexError(f"{text!r} is not a filter; write, for example, group=jazz, tag=rock or 'duration<60'")
    if operator not in ("=", "!="):
        try:
            float(value)
        except ValueError:
            raise SearchIndexError(f"filter {text!r} compares with {value!r}, which is not a number") from None
    return Filter(ALIASES.get(column, column), operator, value)


def _split(text: str) -> tuple[str, str, str]:
    """Column, operator and value; no operator where there is none. One pass, however many blanks there are."""
    found = _OPERATOR.search(text)
    if found is None:
        return text, "", ""
    start = found.start()
    size = 2 if text[start : start + 2] in ("<=", ">=", "!=") else 1
    operator = text[start : start + size]
    return text[:start].strip(), "" if operator == "!" else operator, text[start + size :].strip()


def select_items(items: pd.DataFrame, filters: Iterable[Filter | str]) -> np.ndarray:
    """Which rows of a metadata table meet all conditions: (n,) bool. An empty cell meets none but `!=`.

    Columns of text are compared exactly but for case; `tags` meets `=` if one of its tags does. Where there is a column
    `licence`, its classes (`soundtrack.licences.CLASSES`) can be asked for: `commercial=yes`.

    Raises:
        SearchIndexError: There is no such column, or it holds no numbers.
    """
    selected = np.ones(len(items), dtype=bool)
    for item in filters:
        selected &= _meet(items, parse_filter(item) if isinstance(item, str) else item)
    return selected


def _meet(items: pd.DataFrame, condition: Filter) -> np.ndarray:
    import pandas as pd

    column = _get_column(items, condition.column)
    if condition.operator in ("=", "!="):
        equal = _equals(column, condition.value)
        return equal if condition.operator == "=" else ~equal
    numbers = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    if len(numbers) and np.isnan(numbers).all() and not column.isna().all():
        raise SearchIndexError(f"{condition.column!r} holds no numbers; compare it with = or !=")
    compare = {"<": np.less, "<=": np.less_equal, ">": np.greater, ">=": np.greater_equal}[condition.operator]
    with np.errstate(invalid="ignore"):
        return np.asarray(compare(numbers, float(condition.value)), dtype=bool)


def _get_column(items: pd.DataFrame, name: str) -> pd.Series:
    """A column, or a class of the column `licence`: yes, no or unknown."""
    if name in items.columns:
        return items[name]
    if name in CLASSES and "licence" in items.columns:
        texts = items["licence"].fillna("").astype("str")
        answers = {text: getattr(read_terms(text), name) for text in texts.unique()}
        return texts.map(answers).rename(name)
    known = ", ".join(str(column) for column in items.columns)
    classes = f"; of the licence also {', '.join(CLASSES)}" if "licence" in items.columns else ""
    raise SearchIndexError(f"items have no {name!r} to filter by; they have {known}{classes}")


def _equals(column: pd.Series, value: str) -> np.ndarray:
    import pandas as pd

    if pd.api.types.is_numeric_dtype(column):
        try:
            return np.asarray(column.to_numpy(dtype=np.float64, na_value=np.nan) == float(value))
        except ValueError:
            return np.zeros(len(column), dtype=bool)
    texts = column.astype("str").fillna("").map(fold_case)
    wanted = fold_case(value)
    if column.name == "tags":
        padded = LIST_SEPARATOR + texts + LIST_SEPARATOR
        return padded.str.contains(f"{LIST_SEPARATOR}{wanted}{LIST_SEPARATOR}", regex=False).to_numpy(dtype=bool)
    return (texts == wanted).to_numpy(dtype=bool)
