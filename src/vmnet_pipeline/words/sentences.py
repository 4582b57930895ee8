"""Embed short texts with a small sentence encoder: all-MiniLM-L6-v2, in 8 bits, through OpenVINO.

Source: N. Reimers, I. Gurevych, Sentence-BERT, 2019; W. Wang and others, MiniLM, 2020.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from vmnet_pipeline.backends.weights import resolve_weights, verify_weights
from vmnet_pipeline.errors import WeightsError
from vmnet_pipeline.words.wordpiece import WordPieces

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

MODEL, TOKENIZER = "all-MiniLM-L6-v2", "all-MiniLM-L6-v2-tokenizer"
MAX_PIECES = 128
"""As the network was trained; what a text has beyond them is left out."""
BATCH = 64


class TextEncoder(Protocol):
    """What embeds texts: the sentence encoder, or the text tower of a joint space."""

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """(n, E) float32 unit rows."""
        ...


class SentenceEncoder:
    """Embeds texts so that those of like meaning are near each other. English; other languages by chance.

    Args:
        weights_dir: Folder that holds, or receives, the weight files.
        may_fetch: Whether missing files are fetched.

    Raises:
        WeightsError: The weights are not available, or are damaged.
    """

    def __init__(self, weights_dir: str | Path, *, may_fetch: bool = True) -> None:
        if not may_fetch:
            verify_weights(MODEL, weights_dir)
            verify_weights(TOKENIZER, weights_dir)
        (model,) = resolve_weights(MODEL, weights_dir).paths
        (tokenizer,) = resolve_weights(TOKENIZER, weights_dir).paths
        self._pieces = WordPieces(_read_vocabulary(tokenizer), MAX_PIECES)
        self._run = _compile(model)

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """(n, 384) float32 unit rows: the mean over the pieces of each text."""
        encoded = [self._pieces.encode(text) for text in texts]
        # Texts of one length go together: padding would change the last digits.
        rows = np.empty((len(texts), 384), np.float32)
        for length in sorted({len(own) for own in encoded}):
            places = [place for place, own in enumerate(encoded) if len(own) == length]
            for start in range(0, len(places), BATCH):
                chosen = places[start : start + BATCH]
                rows[chosen] = self._run(np.array([encoded[place] for place in chosen], np.int64)).mean(axis=1)
        return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))


def _read_vocabulary(path: Path) -> dict[str, int]:
    try:
        vocabulary = json.loads(path.read_text(encoding="utf-8"))["model"]["vocab"]
        return {str(piece): int(number) for piece, number in vocabulary.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise WeightsError(f"{path}: not a tokenizer ({type(error).__name__}: {error}); fetch it again") from error


def _compile(path: Path) -> Any:
    """The network as a function from (m, n) numbers of pieces to (m, n, 384) float32."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    # Without 8 bits and bf16 inside: the same text gives the same numbers on every processor, nearly.
    settings = {
        "INFERENCE_PRECISION_HINT": "f32",
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0",
        "PERFORMANCE_HINT": "LATENCY",
    }
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(str(path)), "CPU", settings)

    def run(pieces: np.ndarray) -> np.ndarray:
        inputs = {"input_ids": pieces, "attention_mask": np.ones_like(pieces), "token_type_ids": np.zeros_like(pieces)}
        outputs: np.ndarray = compiled(inputs)[compiled.output(0)]
        return outputs

    return run
