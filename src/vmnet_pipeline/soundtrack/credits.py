"""Who made the music, under which licence, and what was changed: for the credits of a video."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vmnet_pipeline.errors import MediaError, ParameterError
from vmnet_pipeline.media.tags import read_tags
from vmnet_pipeline.soundtrack.licences import Terms, read_terms, warn_of_terms
from vmnet_pipeline.storage.atomic import write_text_atomically

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    from vmnet_pipeline.media.sandbox import Sandbox
    from vmnet_pipeline.soundtrack.render import RenderReport

# Names under which tables and tags have each entry, the best first.
_NAMES = {
    "title": ("title",),
    "artist": ("artist", "artists", "album_artist", "author", "composer", "performer"),
    "album": ("album",),
    "licence": ("licence", "license", "licence_url", "license_url", "wcop", "copyright", "tcop"),
    "source": ("source", "url", "purl", "woaf", "woas", "website", "wxxx"),
}


@dataclass(frozen=True, slots=True)
class Credit:
    """What the credits say of one track; texts are empty where nothing is known.

    Attributes:
        title: Of the track, else the name of its file.
        artist: Who made it.
        album: Where it is from.
        licence: As it is written in the table or the tags.
        source: Where it can be found.
        terms: What the licence allows, as far as it is known.
        changes: What was done to the track, one sentence each.
        notes: What to look after before the video is published.
    """

    title: str
    artist: str = ""
    album: str = ""
    licence: str = ""
    source: str = ""
    terms: Terms = field(default_factory=lambda: Terms(""))
    changes: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def make_credit(
    path: str | os.PathLike[str],
    *,
    row: Mapping[str, Any] | None = None,
    report: RenderReport | None = None,
    sandbox: Sandbox | None = None,
) -> Credit:
    """Collect what is known of a track; its row in the table of the library comes before the tags of its file.

    Args:
        path: The music.
        row: Columns of the library, e.g. title, artist, licence, source.
        report: Of the mix, for the changes.
        sandbox: Where the tags are read; None: they are not. A file that cannot be read has none.
    """
    tags: Mapping[str, Any] = {}
    if sandbox is not None:
        try:
            tags = sandbox.call(read_tags, str(path))
        except MediaError:
            tags = {}
    found = {entry: _find(names, row or {}, tags) for entry, names in _NAMES.items()}
    return Credit(
        title=found["title"] or Path(path).stem,
        artist=found["artist"],
        album=found["album"],
        licence=found["licence"],
        source=found["source"],
        terms=read_terms(found["licence"]),
        changes=[] if report is None else list_changes(report),
        notes=warn_of_terms(found["licence"]),
    )


def _find(names: Sequence[str], row: Mapping[str, Any], tags: Mapping[str, Any]) -> str:
    lower = [{str(name).lower(): value for name, value in table.items()} for table in (row, tags)]
    texts = (_clean(table.get(name)) for table in lower for name in names)
    return next(filter(None, texts), "")


def _clean(value: Any) -> str:
    """One line of text; nothing for a value that is missing, in whatever way a table says so."""
    if value is None or value != value:
        return ""
    return "".join(character for character in " ".join(str(value).split()) if character.isprintable())


def list_changes(report: RenderReport) -> list[str]:
    """What a mix did to the music, one sentence each, as licences ask for."""
    first, n_again = report.passages[0], len(report.passages) - 1
    changes = [f"used from {_tell(first.start_s)} to {_tell(first.end_s)} of the track"]
    if n_again:
        changes.append(f"parts repeated {'once' if n_again == 1 else f'{n_again} times'}, crossfaded")
    fades = [name for name, seconds in (("in", report.fade_in_s), ("out", report.fade_out_s)) if seconds]
    if fades:
        changes.append(f"faded {' and '.join(fades)}")
    if report.own_sound == "duck" and report.speech:
        changes.append("lowered under speech")
    if report.own_sound in ("duck", "keep"):
        changes.append("mixed with the sound of the video")
    return [*changes, f"loudness changed to {report.loudness_lufs:.0f} LUFS, encoded again ({report.audio_codec})"]


def _tell(seconds: float) -> str:
    minutes, rest = divmod(round(seconds, 1), 60)
    return f"{int(minutes)}:{rest:04.1f}"


def format_credits(credits: Sequence[Credit]) -> str:
    """The credits as text, a paragraph for each track."""
    return "\n".join("\n".join(_format_one(credit)) + "\n" for credit in credits)


def _format_one(credit: Credit) -> list[str]:
    by = f" by {credit.artist}" if credit.artist else ""
    licence = credit.terms.name or credit.licence
    address = "" if credit.terms.url in ("", licence) else f" ({credit.terms.url})"
    lines = [f'Music: "{credit.title}"{by}']
    lines += [f"Album: {credit.album}"] if credit.album else []
    lines.append(f"Licence: {licence}{address}" if licence else "Licence: not known")
    lines += [f"Source: {credit.source}"] if credit.source else []
    lines += [f"Changes: {'; '.join(credit.changes)}"] if credit.changes else []
    return [*lines, *(f"Note: {note}" for note in credit.notes)]


def write_credits(path: str | os.PathLike[str], credits: Sequence[Credit]) -> None:
    """Write the credits: .txt for people, .json for programs.

    Raises:
        ParameterError: Another suffix.
        StorageError, OSError: The file cannot be written.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in (".txt", ".json"):
        raise ParameterError(f"{path}: give the credits the suffix .txt or .json")
    content = [asdict(credit) for credit in credits]
    text = json.dumps(content, ensure_ascii=False, indent=2) + "\n" if suffix == ".json" else format_credits(credits)
    write_text_atomically(Path(path), text)
