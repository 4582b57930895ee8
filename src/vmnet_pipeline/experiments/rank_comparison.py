"""Compare variants that were evaluated separately, from the ranks of the same test queries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from vmnet_pipeline.evaluation.results import DIRECTIONS
from vmnet_pipeline.experiments.comparison import Row, list_contributions, summarise_rows
from vmnet_pipeline.params import CompareParams
from vmnet_pipeline.types import PairArrays

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt
    import pandas as pd

_NOTHING = np.empty(0)


def compare_ranks(query_rows: Mapping[str, Sequence[Mapping[str, Any]]], **settings: Any) -> dict[str, Any]:
    """Estimate the metrics of several variants and their paired differences to the first.

    Args:
        query_rows: Variant to its `Evaluation.query_rows`. The first one decides which queries count; a variant that
            was evaluated on others is left out, as its ranks are of another gallery.
        settings: Of `CompareParams`, e.g. `ks`, `n_resamples`, `confidence_level` and `seed`.

    Returns:
        As `comparison.compare_variants` gives it, without what only a training has; `left_out` names the variants
        with other queries.
    """
    tables = {name: _tabulate(rows) for name, rows in query_rows.items()}
    first = next(iter(tables.values()))
    kept = {name: table for name, table in tables.items() if table.index.equals(first.index)}
    groups = tuple(str(group) for group in first["group"])
    params = CompareParams(variants={name: {} for name in kept}, seeds=(0,), baselines=(), **settings)
    rows = [_make_row(name, table[list(DIRECTIONS)].to_numpy(np.float64).T, params) for name, table in kept.items()]
    summary = summarise_rows(rows, PairArrays(tuple(first.index), groups, _NOTHING, _NOTHING), params)
    left_out = [name for name in tables if name not in kept]
    return summary | {"seeds": [], "sizes": {"test": len(first)}, "left_out": left_out}


def _tabulate(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """One row per id with its group and the rank in each direction, by id."""
    import pandas as pd

    ranks = pd.DataFrame(rows)
    table = ranks.pivot_table(index="id", columns="direction", values="rank", aggfunc="mean")
    group = ranks.drop_duplicates("id").set_index("id")["group"]
    return table.assign(group=group.where(group.notna(), group.index.to_series())).sort_index()


def _make_row(name: str, ranks: npt.NDArray[np.float64], params: CompareParams) -> Row:
    values = list_contributions(ranks, params.ks)[None]
    return Row(name, "variant", values, np.median(ranks, axis=1)[None], val_mrr=())
