"""Read the tags of a media file: title, artist, licence and whatever else is written in it."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from vmnet_pipeline.media.container import find_audio_stream, open_media_file, start_container

if TYPE_CHECKING:
    import os

_MOST_TAGS = 100
_LONGEST = 500


def read_tags(path: str | os.PathLike[str]) -> dict[str, str]:
    """Tags of a file and of its sound, names in lower case; at most 100, each of at most 500 characters in one line.

    Raises:
        MediaError: Reasons of `open_media_file` and `start_container`.
    """
    with open_media_file(path) as file, closing(start_container(file, path)) as container:
        stream = find_audio_stream(container)
        tags = {**(dict(stream.metadata) if stream is not None else {}), **container.metadata}
    return {_clean(name).lower(): _clean(text) for name, text in list(tags.items())[:_MOST_TAGS]}


def _clean(text: str) -> str:
    """One line that can be printed."""
    line = " ".join(text[: 2 * _LONGEST].split())
    return "".join(character for character in line if character.isprintable())[:_LONGEST]
