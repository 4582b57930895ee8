"""Collect what words can ask for from stored features: tags, picture classes and descriptors of each item."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from vmnet_pipeline.backends.descriptors.names import NAMED_DESCRIPTORS, find_descriptors
from vmnet_pipeline.backends.musicnn_tags import make_tagger
from vmnet_pipeline.backends.picture_classes import make_classifier
from vmnet_pipeline.errors import FeatureStoreError, WeightsError
from vmnet_pipeline.words.concepts import SIGN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import pandas as pd

    from vmnet_pipeline.features.store import FeatureStore
    from vmnet_pipeline.types import Fingerprint

logger = logging.getLogger(__name__)

MIN_PROBABILITY = 1e-6


class Describer(NamedTuple):
    """Makes numbers that words can ask for from the features of one store."""

    columns: tuple[str, ...]
    describe: Callable[[np.ndarray], np.ndarray]  # a stored feature to (m,) numbers, log-odds for probabilities


def collect_qualities(
    stores: Sequence[FeatureStore], ids: Sequence[str], weights_dir: str | Path, *, needs_weights: bool = True
) -> pd.DataFrame:
    """What is known of items, from all stores that tell: `id` and one column for each quality, float32.

    A column is named after what made it: `MSD_musicnn:rock`, `descriptors_audio:tempo`, `efficientnet-lite0:beach`.
    Log-odds for what is a probability; NaN for items of which it is not known.

    Args:
        stores: Features of any backends.
        ids: Items, the rows of the table.
        weights_dir: Weight files of the networks that made the features.
        needs_weights: Whether it is an error that those are not available; else their features tell nothing.

    Raises:
        WeightsError: They are not available.
    """
    import pandas as pd

    found = [(store, _find_describer(store, weights_dir, needs_weights=needs_weights)) for store in stores]
    parts = [_collect_store(store, ids, describer) for store, describer in found if describer is not None]
    table = pd.DataFrame({"id": pd.Series(list(ids), dtype="str")})
    return pd.concat([table, *parts], axis=1)


def choose_describer(fingerprint: Fingerprint | None, weights_dir: str | Path) -> Describer | None:
    """What can be said of features of this identity; None if nothing.

    Raises:
        WeightsError: The weights of the network that made them are not available.
    """
    if fingerprint is None:
        return None
    if descriptors := find_descriptors(fingerprint):
        chosen = [place for place, own in enumerate(descriptors) if own.name in NAMED_DESCRIPTORS]
        names = tuple(f"{fingerprint.backend}{SIGN}{descriptors[place].name}" for place in chosen)
        return Describer(names, lambda feature: np.atleast_2d(np.asarray(feature, np.float64)).mean(axis=0)[chosen])
    rater = make_tagger(fingerprint, weights_dir) or make_classifier(fingerprint, weights_dir)
    if rater is None:
        return None
    source = fingerprint.settings["weights"]["name"]
    return Describer(
        tuple(f"{source}{SIGN}{name}" for name in rater.names), lambda feature: _find_odds(rater.rate(feature))
    )


def name_tags(qualities: pd.DataFrame, n_tags: int) -> dict[str, list[str]]:
    """Id to the most likely tags of each item, the most likely first; of the first network that tags."""
    from vmnet_pipeline.backends.musicnn_tags import TAGS

    columns: dict[str, list[str]] = {}
    for column in qualities.columns.drop("id"):
        source, _, name = column.partition(SIGN)
        if source in TAGS:
            columns.setdefault(source, []).append(name)
    if not columns or n_tags == 0:
        return {}
    source, names = next(iter(columns.items()))
    values = qualities[[f"{source}{SIGN}{name}" for name in names]].to_numpy()
    order = np.argsort(-values, axis=1, kind="stable")[:, :n_tags]
    known = np.isfinite(values).all(axis=1)
    return {
        str(item_id): [names[place] for place in own]
        for item_id, own, is_known in zip(qualities["id"], order, known, strict=True)
        if is_known
    }


def _find_describer(store: FeatureStore, weights_dir: str | Path, *, needs_weights: bool) -> Describer | None:
    try:
        return choose_describer(store.fingerprint(), weights_dir)
    except WeightsError as error:
        if needs_weights:
            raise
        logger.warning("words cannot ask for what %s tells: %s", store, error)
        return None


def _collect_store(store: FeatureStore, ids: Sequence[str], describer: Describer) -> pd.DataFrame:
    import pandas as pd

    values = np.full((len(ids), len(describer.columns)), np.nan, np.float32)
    for place, row in _describe_all(store, ids, describer):
        values[place] = row
    return pd.DataFrame(values, columns=list(describer.columns))


def _describe_all(store: FeatureStore, ids: Sequence[str], describer: Describer) -> Iterator[tuple[int, np.ndarray]]:
    """Numbers of the items that have a feature; one that cannot be read has none, and a warning."""
    for place, item_id in enumerate(ids):
        row = store.rows.get(item_id)
        if row is None or row.status != "done":
            continue
        try:
            yield place, describer.describe(store.load(item_id))
        except FeatureStoreError as error:
            logger.warning("no tags for %r: %s", item_id, error)


def _find_odds(probabilities: np.ndarray) -> np.ndarray:
    """Log-odds; not-a-number stays what it is."""
    inside = np.clip(np.asarray(probabilities, np.float64), MIN_PROBABILITY, 1.0 - MIN_PROBABILITY)
    return np.asarray(np.log(inside) - np.log1p(-inside))
