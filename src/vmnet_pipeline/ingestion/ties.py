"""Groups that content ties together: a song used in two videos makes one group of theirs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd


def tie_groups(ids: pd.Series, groups: pd.Series, contents: Sequence[pd.Series]) -> pd.Series:
    """The group of every item: the given one, else its id; items that share a content share a group.

    Groups are the connected components of a graph of group names and contents, as a song used in two videos ties their
    groups. A component is named after its first given group by name, if it has one, else after its first item.

    Args:
        ids: (n,) text.
        groups: (n,) text, empty where none is given.
        contents: Columns of (n,) text, e.g. checksums; a missing value ties nothing.

    Returns:
        (n,) text with the index of `ids`.
    """
    import numpy as np
    import pandas as pd
    import pyarrow as pa
    import pyarrow.compute as pc
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    own = ("group:" + groups).where(groups != "", "item:" + ids)
    owners, names = pd.factorize(own)
    sums, known = pd.factorize(pd.concat(contents))
    ties = sums >= 0
    n_nodes = len(names) + len(known)
    edges = (np.tile(owners, len(contents))[ties], len(names) + sums[ties])
    graph = coo_array((np.ones(len(edges[0]), np.int8), edges), shape=(n_nodes, n_nodes))
    component = connected_components(graph, directed=False)[1][: len(names)]
    order = pc.sort_indices(pa.array(names)).to_numpy()
    rank = np.empty(len(names), np.int64)
    rank[order] = np.arange(len(names))
    first = np.full(n_nodes, len(names))
    np.minimum.at(first, component, rank)
    called = pd.Series(names.take(order[first[component]]), dtype="str")
    called = called.str.slice(len("group:")).where(called.str.startswith("group:"), called.str.slice(len("item:")))
    return called.take(owners).set_axis(ids.index)
