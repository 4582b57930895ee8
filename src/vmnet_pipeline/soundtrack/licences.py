"""What a licence allows, from the texts that people write: SPDX identifiers, Creative Commons addresses, plain words.

Only what is certain is said; everything else is unknown. This is no legal advice.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Answer = Literal["yes", "no", "unknown"]

CLASSES = ("commercial", "adaptation", "attribution", "share_alike")
"""Columns that filters know beside the text of a licence."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What a licence allows and asks for.

    Attributes:
        name: A short name, an SPDX identifier where there is one; the text itself if it is not known.
        url: Where it can be read; empty if unknown.
        commercial: Whether commercial use is allowed.
        adaptation: Whether the work may be changed. To put music under a picture is a change (Creative Commons 4.0,
            section 1a).
        attribution: Whether the author must be named.
        share_alike: Whether what is made of it must be under the same licence.
    """

    name: str
    url: str = ""
    commercial: Answer = "unknown"
    adaptation: Answer = "unknown"
    attribution: Answer = "unknown"
    share_alike: Answer = "unknown"


_VERSION = re.compile(r"(?<![\d.])([1-4]\.\d)(?![\d.])")
_CC_ADDRESS = re.compile(r"creativecommons\.org/(licenses|publicdomain)/([a-z+-]+)(?:/(\d\.\d))?")
_CC_CODE = re.compile(r"\bcc[ _-]?((?:by|nc|sa|nd)(?:[ _-]?(?:by|nc|sa|nd))*)\b")
_ELEMENTS = re.compile(r"by|nc|sa|nd")
_CC_WORDS = {
    "nc": re.compile(r"non ?commercial"),
    "sa": re.compile(r"share ?alike"),
    "nd": re.compile(r"no ?deriv"),
}
_FREE = Terms("", commercial="yes", adaptation="yes", attribution="no", share_alike="no")
_PUBLIC_DOMAIN = re.compile(r"\b(public ?domain|pd|pddl|cc ?0|cc ?zero|unlicense|publicdomain)\b")
_RESERVED = re.compile(r"\ball rights reserved\b|\bproprietary\b")
_ZERO_ADDRESS = "https://creativecommons.org/publicdomain/zero/1.0/"
# Licences of one name, not of Creative Commons: SPDX identifier, address, (attribution, share-alike).
_OTHERS = (
    (re.compile(r"\b(lal|licence art libre|free art licen[cs]e)\b"), "LAL-1.3", "https://artlibre.org/", "yes", "yes"),
    (re.compile(r"\bgfdl\b|gnu free documentation"), "GFDL-1.3", "https://www.gnu.org/licenses/fdl-1.3", "yes", "yes"),
    (re.compile(r"\bmit( licen[cs]e)?$"), "MIT", "https://spdx.org/licenses/MIT", "yes", "no"),
    (re.compile(r"\bapache[ -](license )?2"), "Apache-2.0", "https://www.apache.org/licenses/LICENSE-2.0", "yes", "no"),
)
_LONGEST = 500


def read_terms(text: str) -> Terms:
    """Understand a licence as someone wrote it.

    Example:
        >>> terms = read_terms("https://creativecommons.org/licenses/by-nc/4.0/")
        >>> terms.name, terms.commercial, terms.attribution, terms.share_alike
        ('CC-BY-NC-4.0', 'no', 'yes', 'no')
        >>> read_terms("ask my label").commercial
        'unknown'
    """
    plain = " ".join(text[:_LONGEST].lower().replace("_", " ").replace("(", " ").replace(")", " ").split())
    found = _read_address(plain) or _read_code(plain) or _read_words(plain) or _read_other(plain)
    return found or Terms(" ".join(text[:_LONGEST].split()))


def _read_address(text: str) -> Terms | None:
    found = _CC_ADDRESS.search(text)
    if found is None:
        return None
    kind, code, version = found.groups()
    if kind == "publicdomain":
        name = "CC0-1.0" if code == "zero" else "Public domain"
        return _rename(_FREE, name, f"https://{found.group(0)}/" if version else "")
    if "+" in code or "sampling" in code:
        return None
    return _make_cc(set(_ELEMENTS.findall(code)), version or "")


def _read_code(text: str) -> Terms | None:
    """`CC BY-NC-SA 3.0`, `cc-by-4.0`, `by-sa`."""
    found = _CC_CODE.search(text) or re.fullmatch(r"(by(?:[ -](?:nc|sa|nd))*)(?:[ -]\d\.\d)?", text)
    if found is None:
        return None
    return _make_cc(set(_ELEMENTS.findall(found.group(1))), _find_version(text))


def _read_words(text: str) -> Terms | None:
    """`Creative Commons Attribution-NonCommercial 3.0 International`, `Public Domain`."""
    spaced = text.replace("-", " ")
    if _PUBLIC_DOMAIN.search(spaced) and not re.search(r"\bnot\b", spaced):
        is_zero = re.search(r"cc ?(0|zero)", spaced)
        return _rename(_FREE, "CC0-1.0" if is_zero else "Public domain", _ZERO_ADDRESS if is_zero else "")
    elements = {code for code, pattern in _CC_WORDS.items() if pattern.search(spaced)}
    if re.search(r"\battribution\b", spaced) and (elements or re.search(r"creative commons|\bcc\b", spaced)):
        return _make_cc({"by", *elements}, _find_version(text))
    return None


def _read_other(text: str) -> Terms | None:
    if _RESERVED.search(text):
        return Terms("All rights reserved", "", "no", "no", "unknown", "no")
    for pattern, name, url, attribution, share_alike in _OTHERS:
        if pattern.search(text):
            return Terms(name, url, "yes", "yes", attribution, share_alike)  # type: ignore[arg-type]
    return None


def _find_version(text: str) -> str:
    found = _VERSION.search(text)
    return found.group(1) if found else ""


def _make_cc(elements: set[str], version: str) -> Terms | None:
    if "by" not in elements and not elements:
        return None
    code = "-".join(["by"] * ("by" in elements) + [part for part in ("nc", "nd", "sa") if part in elements])
    url = f"https://creativecommons.org/licenses/{code}/{version}/" if version else ""
    return Terms(
        name=f"CC-{code.upper()}" + (f"-{version}" if version else ""),
        url=url,
        commercial="no" if "nc" in elements else "yes",
        adaptation="no" if "nd" in elements else "yes",
        attribution="yes" if "by" in elements else "no",
        share_alike="yes" if "sa" in elements else "no",
    )


def _rename(terms: Terms, name: str, url: str) -> Terms:
    return Terms(name, url, terms.commercial, terms.adaptation, terms.attribution, terms.share_alike)


def warn_of_terms(text: str) -> list[str]:
    """What to know before a track is put under a video, by its licence; empty if it is free of conditions.

    Example:
        >>> warn_of_terms("CC BY-ND 4.0")
        ['its licence (CC-BY-ND-4.0) does not allow changes, and music under a video is one']
    """
    if not text.strip():
        return ["its licence is not known; ask the author"]
    terms = read_terms(text)
    found = []
    if terms.adaptation == "no":
        found.append(f"its licence ({terms.name}) does not allow changes, and music under a video is one")
    if terms.commercial == "no":
        found.append(f"its licence ({terms.name}) does not allow commercial use")
    if terms.share_alike == "yes":
        found.append(f"its licence ({terms.name}) asks for the same licence for the video")
    if terms.commercial == "unknown":
        found.append(f"what its licence ({terms.name}) allows is not known; read it")
    return found
