"""The examples in docstrings that need nothing from outside run, and give what they show."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

import vmnet_pipeline

SOURCES = Path(vmnet_pipeline.__file__).parent
PACKAGES = ("backends", "evaluation", "experiments", "features", "media", "models", "params", "reporting")
MODULES = [
    ".".join(path.relative_to(SOURCES.parent).with_suffix("").parts)
    for package in PACKAGES
    for path in sorted((SOURCES / package).rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_give_what_they_show(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert result.attempted
    assert not result.failed
