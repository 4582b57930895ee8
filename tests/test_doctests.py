"""Examples in the docstrings of public entry points run."""

import doctest
import importlib

import pytest

EXAMPLES = {
    "backends.registry": "get_backend",
    "media.audio": "decode_audio",
    "media.video": "sample_frames",
}


@pytest.mark.parametrize("module", EXAMPLES)
def test_examples_of_entry_points_run(module):
    found = importlib.import_module(f"vmnet_pipeline.{module}")
    assert ">>> " in getattr(found, EXAMPLES[module]).__doc__
    result = doctest.testmod(found)
    assert result.attempted
    assert not result.failed
