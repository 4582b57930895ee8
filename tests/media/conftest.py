"""Fixtures of the media tests."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest

from vmnet_pipeline.media import container

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator


class CountingFile(io.FileIO):
    """A file that knows how much was read from it."""

    n_bytes_read = 0

    def read(self, size: int = -1) -> bytes:
        data = super().read(size)
        self.n_bytes_read += len(data)
        return data


@pytest.fixture
def counted_files(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[CountingFile]]:
    """Every file that the container module opens during the test."""
    files: list[CountingFile] = []
    open_really = container.open_regular_file

    def open_counted(path: str | os.PathLike[str]) -> io.FileIO:
        with open_really(path):
            files.append(CountingFile(path))
        return files[-1]

    monkeypatch.setattr(container, "open_regular_file", open_counted)
    yield files
    assert all(file.closed for file in files)
