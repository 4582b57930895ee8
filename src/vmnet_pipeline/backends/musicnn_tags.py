"""Tags of music from stored musicnn features: the last layer of the network, without running the others again.

Source: https://github.com/jordipons/musicnn, for the order of the tags.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from vmnet_pipeline.types import Fingerprint

# fmt: off
MILLION_SONG_TAGS = (
    "rock", "pop", "alternative", "indie", "electronic", "female vocalists", "dance", "00s", "alternative rock",
    "jazz", "beautiful", "metal", "chillout", "male vocalists", "classic rock", "soul", "indie rock", "Mellow",
    "electronica", "80s", "folk", "90s", "chill", "instrumental", "punk", "oldies", "blues", "hard rock", "ambient",
    "acoustic", "experimental", "female vocalist", "guitar", "Hip-Hop", "70s", "party", "country", "easy listening",
    "sexy", "catchy", "funk", "electro", "heavy metal", "Progressive rock", "60s", "rnb", "indie pop", "sad", "House",
    "happy",
)
MAGNATAGATUNE_TAGS = (
    "guitar", "classical", "slow", "techno", "strings", "drums", "electronic", "rock", "fast", "piano", "ambient",
    "beat", "violin", "vocal", "synth", "female", "indian", "opera", "male", "singing", "vocals", "no vocals",
    "harpsichord", "loud", "quiet", "flute", "woman", "male vocal", "no vocal", "pop", "soft", "sitar", "solo", "man",
    "classic", "choir", "voice", "new age", "dance", "male voice", "female vocal", "beats", "harp", "cello",
    "no voice", "weird", "country", "metal", "female voice", "choral",
)
# fmt: on
TAGS = {
    "MSD_musicnn": MILLION_SONG_TAGS,
    "MSD_musicnn_big": MILLION_SONG_TAGS,
    "MSD_vgg": MILLION_SONG_TAGS,
    "MTT_musicnn": MAGNATAGATUNE_TAGS,
    "MTT_vgg": MAGNATAGATUNE_TAGS,
}

BACKENDS = ("musicnn", "musicnn_tags")
"""Those whose features tags can be derived from."""


class Tagger:
    """Names the tags of music.

    Args:
        names: Tags in the order of the last layer.
        weight: (D, 50) of that layer; None for features that are tags already.
        bias: (50,).
    """

    def __init__(self, names: tuple[str, ...], weight: np.ndarray | None, bias: np.ndarray | None) -> None:
        self.names, self._weight, self._bias = names, weight, bias

    def rate_tags(self, feature: np.ndarray) -> np.ndarray:
        """Rate how likely each tag is at each time: (T, D) as stored to (T, 50) in [0, 1], in the order of `names`."""
        if self._weight is None or self._bias is None:
            return feature
        likelihood: np.ndarray = 1.0 / (1.0 + np.exp(-(feature @ self._weight + self._bias)))
        return likelihood

    def rate(self, feature: np.ndarray) -> np.ndarray:
        """Rate how likely each tag is on average: (T, D), or (50,) stored pooled, to (50,) in [0, 1]."""
        return np.asarray(self.rate_tags(np.atleast_2d(feature)).mean(axis=0))


def make_tagger(fingerprint: Fingerprint | None, weights_dir: str | Path) -> Tagger | None:
    """Make a tagger for features of this identity; None if tags cannot be derived from them.

    They can be derived from the layer `taggram` of published weights, and from `penultimate` stored unpooled.

    Raises:
        WeightsError: The weights are not available.
    """
    settings: dict[str, Any] = {} if fingerprint is None else fingerprint.settings
    model, layer = settings.get("model"), settings.get("layer")
    is_published = settings.get("weights", {}).get("name") == model
    if fingerprint is None or fingerprint.backend not in BACKENDS or model not in TAGS or not is_published:
        return None
    if layer == "taggram":
        return Tagger(TAGS[model], None, None)
    if settings.get("pooled") or layer != "penultimate":
        return None
    from vmnet_pipeline.backends.tensorflow_checkpoint import read_checkpoint
    from vmnet_pipeline.backends.weights import resolve_weights

    variables = read_checkpoint(*resolve_weights(model, weights_dir).paths)
    last = "dense" if model.endswith("_vgg") else "dense_1"
    return Tagger(TAGS[model], variables[f"{last}/kernel"], variables[f"{last}/bias"])
