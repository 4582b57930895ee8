"""What words can ask for: the concepts of `conf/base/words.yml`, and what is known of items but has no concept.

A concept has words, and columns of what is known of items: those it has more of, and those it has less of.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vmnet_pipeline.errors import ParameterError
from vmnet_pipeline.storage.configuration import find_conf

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

TABLE_NAME = "words.yml"
SIGN = ":"
"""Between what made a column and its name: `MSD_musicnn:rock`."""


@dataclass(frozen=True, slots=True)
class Concept:
    """Something that words can ask for.

    Attributes:
        name: Unique.
        says: Words for it, in lower case.
        columns: Column to its share of the concept; negative ones speak against it. The absolute values sum up to 1.
    """

    name: str
    says: tuple[str, ...]
    columns: Mapping[str, float]


def list_concepts(columns: Sequence[str]) -> list[Concept]:
    """The concepts that some of these columns, of one side of a library, say something about.

    Raises:
        ParameterError: conf/base/words.yml or conf/local/words.yml cannot be used.
    """
    named: dict[str, list[str]] = {}
    for column in columns:
        named.setdefault(column.partition(SIGN)[2].lower(), []).append(column)
    concepts, spoken = [], set[str]()
    for name, entry in _read_table().items():
        weights = {
            column: sign / len(found)
            for sign, key in ((1.0, "more"), (-1.0, "less"))
            for tag in entry.get(key, ())
            if (found := named.get(str(tag).lower()))
            for column in found
        }
        if weights:
            concepts.append(Concept(name, _list_words(entry.get("says", ()), name), _scale(weights)))
            spoken |= {column for column, weight in weights.items() if weight > 0}
    rest = [column for column in columns if column not in spoken and not column.startswith("descriptors")]
    return concepts + [Concept(column, _list_words([column.partition(SIGN)[2]], ""), {column: 1.0}) for column in rest]


def _list_words(says: Sequence[Any], name: str) -> tuple[str, ...]:
    """Each once, in lower case, as clauses are; without what stands in brackets."""
    plain = (re.sub(r"\(.*?\)|[,;]", " ", str(own)).lower().strip() for own in (*says, name))
    return tuple(dict.fromkeys(filter(None, plain)))


def _scale(weights: dict[str, float]) -> dict[str, float]:
    """Half of a concept is what it has more of, half what it has less of; all where one of them is missing."""
    totals = {sign: sum(abs(w) for w in weights.values() if (w > 0) == sign) for sign in (True, False)}
    n_signs = sum(total > 0 for total in totals.values())
    return {column: weight / totals[weight > 0] / n_signs for column, weight in weights.items()}


def _read_table() -> dict[str, dict[str, Any]]:
    import yaml

    table: dict[str, dict[str, Any]] = {}
    for path in _find_tables():
        try:
            table |= dict(_check_table(path))
        except (OSError, UnicodeError, yaml.YAMLError, TypeError, RecursionError) as error:
            raise ParameterError(f"{path}: not a table of concepts ({error}); correct it") from error
    return table


def _find_tables() -> Iterator[Path]:
    yield find_conf() / "base" / TABLE_NAME
    private = Path("conf/local") / TABLE_NAME
    if private.is_file():
        yield private


def _check_table(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    from vmnet_pipeline.storage.yaml_files import load_yaml

    content = load_yaml(path.read_text(encoding="utf-8")) or {}
    if not isinstance(content, dict):
        raise TypeError("it must map names to `says`, `more` and `less`")
    for name, entry in content.items():
        if not isinstance(entry, dict) or not entry.keys() <= {"says", "more", "less"}:
            raise TypeError(f"{name}: give `says`, `more` and `less`, and nothing else")
        if not all(isinstance(own, list) for own in entry.values()):
            raise TypeError(f"{name}: `says`, `more` and `less` are lists")
        yield str(name), entry
