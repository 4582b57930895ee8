"""Cut text into the pieces that BERT networks take.

Source: Y. Wu and others, Google's neural machine translation system, 2016 (WordPiece); J. Devlin and others, BERT, 2019
(clean text, lower case, no accents, one piece for each punctuation mark and each Chinese character).
"""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

CONTINUES = "##"
"""Mark of a piece that is not the first of its word."""
MAX_WORD = 100
"""A longer word is unknown as a whole."""
_CHINESE = (
    *((0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F)),
    *((0x2B820, 0x2CEAF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F)),
)


class WordPieces:
    """Cuts text into numbered pieces.

    Args:
        vocabulary: Piece to number, with `[CLS]`, `[SEP]` and `[UNK]`.
        max_pieces: Most pieces of a text, with the two around it; the rest of the text is left out.
    """

    def __init__(self, vocabulary: Mapping[str, int], max_pieces: int) -> None:
        self._vocabulary, self._max_pieces = vocabulary, max_pieces

    def encode(self, text: str) -> list[int]:
        """Numbers of the pieces, with those of the beginning and the end."""
        pieces: list[int] = []
        for word in split_words(text):
            pieces += self._cut(word)
            if len(pieces) > self._max_pieces - 2:
                break
        return [self._vocabulary["[CLS]"], *pieces[: self._max_pieces - 2], self._vocabulary["[SEP]"]]

    def _cut(self, word: str) -> list[int]:
        """The longest known piece each time; one unknown rest makes the whole word unknown."""
        unknown, pieces, start = [self._vocabulary["[UNK]"]], [], 0
        if len(word) > MAX_WORD:
            return unknown
        while start < len(word):
            mark = CONTINUES if start else ""
            ends = range(len(word), start, -1)
            end = next((end for end in ends if mark + word[start:end] in self._vocabulary), 0)
            if not end:
                return unknown
            pieces.append(self._vocabulary[mark + word[start:end]])
            start = end
        return pieces


def split_words(text: str) -> Iterator[str]:
    """Words in lower case without accents; punctuation marks and Chinese characters are words of their own."""
    spaced = "".join(f" {sign} " if _is_chinese(sign) else sign for sign in map(_clean, text))
    lowered = unicodedata.normalize("NFD", spaced).lower()
    bare = "".join(sign for sign in unicodedata.normalize("NFD", lowered) if unicodedata.category(sign) != "Mn")
    for part in bare.split():
        yield from _split_marks(part)


def _clean(sign: str) -> str:
    """Nothing for a control character, a blank for anything blank."""
    if sign in "\t\n\r" or unicodedata.category(sign) == "Zs":
        return " "
    return "" if sign in "\0\ufffd" or unicodedata.category(sign) in ("Cc", "Cf", "Co", "Cs") else sign


def _is_chinese(sign: str) -> bool:
    return bool(sign) and any(low <= ord(sign) <= high for low, high in _CHINESE)


def _split_marks(part: str) -> Iterator[str]:
    word = ""
    for sign in part:
        if _is_mark(sign):
            yield from filter(None, (word, sign))
            word = ""
        else:
            word += sign
    if word:
        yield word


def _is_mark(sign: str) -> bool:
    is_ascii_mark = sign.isascii() and sign.isprintable() and not sign.isalnum()
    return is_ascii_mark or unicodedata.category(sign).startswith("P")
