"""Read what a text asks for: its clauses, and which of them are exclusions.

calm piano, no drums       calm piano | not: drums
rock without vocals        rock | not: vocals
electronic -techno         electronic | not: techno
no drums and no vocals     not: drums | not: vocals
not without drums          drums
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from vmnet_pipeline.errors import ParameterError

MAX_TEXT = 1000
"""Characters of a text."""
MAX_CLAUSES = 20

# fmt: off
_NEGATORS = frozenset((
    "no", "not", "without", "w/o", "except", "excluding", "exclude", "minus", "never", "nothing", "nobody", "none",
    "dont", "doesnt", "isnt", "avoid", "free", "non", "less", "fewer", "neither", "nor",
    "ohne", "kein", "keine", "keinen", "nicht", "sans", "pas", "sin", "senza",
))
_FILLERS = frozenset((
    "a", "an", "the", "of", "for", "in", "on", "at", "to", "from", "by", "is", "are", "be", "it", "its", "that", "this",
    "i", "me", "my", "we", "you", "want", "like", "need", "find", "give", "play", "please", "some", "something", "any",
    "anything", "everything", "more", "much", "many", "very", "really", "bit", "lot", "rather", "quite", "sound",
    "sounds", "sounding", "music", "track", "tracks", "song", "songs", "tune", "piece", "scene", "video", "clip",
    "film", "kind", "do", "does", "should", "must", "have", "has", "having", "there", "s", "t", "instead", "than",
    "only", "just", "over", "as", "so", "too", "all", "our", "your", "will", "would", "can", "but", "with", "and", "or",
))
# fmt: on
_BREAKS = frozenset(("but", "with", "yet", "although", "plus", "aber", "mit", "mais", "avec", "pero", "con", "ma"))
_JOINS = frozenset(("and", "or", "und", "oder", "et", "ou", "y", "e", "o"))
_SIGNS = re.compile(r"[,;:.!?\n\r/+|()\[\]{}\"\u201c\u201d\u201e\u00ab\u00bb\u3001\u3002]+")


@dataclass(frozen=True, slots=True)
class Clause:
    """A part of a text.

    Attributes:
        words: Its words, in lower case, with fillers.
        is_excluded: Whether items are wanted that do not have it.
    """

    words: tuple[str, ...]
    is_excluded: bool = False

    @property
    def text(self) -> str:
        """The words as they are embedded and shown."""
        return " ".join(self.words)

    @property
    def content(self) -> tuple[str, ...]:
        """The words that say something."""
        return tuple(word for word in self.words if word not in _FILLERS and any(map(str.isalnum, word)))


def read_clauses(text: str) -> list[Clause]:
    """Cut a text into clauses, those without content left out.

    Raises:
        ParameterError: It is empty or too long, or has too many clauses.
    """
    if len(text) > MAX_TEXT:
        raise ParameterError(f"the text has {len(text)} characters; write at most {MAX_TEXT}")
    plain = unicodedata.normalize("NFKC", text).lower().replace("\u2019", "'")
    # "don't" is one word; a minus before a word excludes it; "non-vocal" is two words, "avant-garde" is one.
    plain = re.sub(r"(?<=\w)'(?=t\b)", "", plain)
    plain = re.sub(r"\bw/o\b", " without ", plain)
    plain = re.sub(r"(?:^|(?<=[\s,;]))[-\u2013\u2212](?=\w)", " , no ", plain)
    plain = re.sub(r"\bnon-(?=\w)", "non ", plain)
    clauses = [clause for part in _SIGNS.split(plain) for clause in _cut_part(part.split())]
    kept = [clause for clause in clauses if clause.content]
    if not kept:
        raise ParameterError("the text says nothing to search for; write, for example, 'calm piano, no drums'")
    if len(kept) > MAX_CLAUSES:
        raise ParameterError(f"the text has {len(kept)} parts; write at most {MAX_CLAUSES}, between commas")
    return kept


def _cut_part(words: list[str]) -> list[Clause]:
    """Clauses of what stands between two signs: an exclusion reaches to its end, or to `but` or `with`."""
    clauses, own, is_excluded, follows_negator = [], list[str](), False, False
    for place, word in enumerate(words):
        opens = word in _NEGATORS and not _is_free_word(words, place)
        if not (opens or word in _BREAKS or word in _JOINS):
            own.append(word)
            follows_negator = follows_negator and word in _FILLERS
            continue
        clauses.append(Clause(tuple(own), is_excluded))
        own = []
        if opens:
            is_excluded = not (is_excluded and follows_negator)  # "not without", "nothing except"
        elif word in _BREAKS:
            is_excluded = False
        follows_negator = opens
    return [*clauses, Clause(tuple(own), is_excluded)]


def _is_free_word(words: list[str], place: int) -> bool:
    """`free` excludes only in `free of`."""
    following = words[place + 1] if place + 1 < len(words) else ""
    return words[place] == "free" and following not in ("of", "from")
