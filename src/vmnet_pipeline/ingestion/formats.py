"""Tell which files may hold media: by suffix, and all others by content."""

from __future__ import annotations

import codecs
import os
import re
import stat
from typing import Literal

# fmt: off
VIDEO_SUFFIXES = frozenset({
    ".mp4", ".m4v", ".mov", ".qt", ".mkv", ".mk3d", ".webm", ".avi", ".divx", ".mpg", ".mpeg", ".mpe", ".mpv",
    ".m1v", ".m2v", ".ts", ".m2t", ".m2ts", ".mts", ".trp", ".tp", ".tod", ".vob", ".evo", ".wmv", ".asf",
    ".flv", ".f4v", ".3gp", ".3gpp", ".3g2", ".3gp2", ".ogv", ".ogm", ".mxf", ".gxf", ".dv", ".dif", ".rm",
    ".rmvb", ".nut", ".y4m", ".ivf", ".mj2", ".mjpg", ".mjpeg", ".h264", ".264", ".avc", ".h265", ".265",
    ".hevc", ".obu", ".vc1", ".wtv", ".nsv", ".amv", ".insv", ".lrv", ".ismv", ".bik", ".smk", ".roq",
})
AUDIO_SUFFIXES = frozenset({
    ".mp3", ".mp2", ".mp1", ".mpa", ".m2a", ".ogg", ".oga", ".opus", ".spx", ".flac", ".wav", ".wave", ".w64",
    ".rf64", ".bwf", ".m4a", ".m4b", ".m4r", ".f4a", ".isma", ".aac", ".adts", ".latm", ".loas", ".wma",
    ".xwma", ".aiff", ".aif", ".aifc", ".ac3", ".eac3", ".ec3", ".ac4", ".dts", ".dtshd", ".thd", ".mlp",
    ".mka", ".weba", ".ape", ".wv", ".tak", ".tta", ".mpc", ".mp+", ".caf", ".au", ".snd", ".amr", ".awb",
    ".3ga", ".ra", ".dsf", ".dff", ".voc", ".oma", ".aa3", ".at3", ".shn", ".gsm", ".qcp", ".aptx", ".sbc",
    ".lc3",
})
# fmt: on
MEDIA_SUFFIXES = VIDEO_SUFFIXES | AUDIO_SUFFIXES

Content = Literal["audio", "other", "unknown"]

_HEAD_BYTES = 4096
_CONTROLS = re.compile(rb"[\0-\x08\x0e-\x1a\x1c-\x1f]")
_ARBITRARY_SUFFIX = re.compile(r"\.(?=\w*[A-Za-z])\w{1,10}", re.ASCII)
# Audio formats that hold no video, at most a cover.
_AUDIO = (
    b"fLaC", b"ID3", b"#!AMR", b"caff", b"wvpk", b"MAC ", b"TTA1", b"tBaK", b"MPCK", b"MP+", b".snd", b"DSD ", b"\x0bw",
    b"\x7f\xfe\x80\1",
)  # fmt: skip
_OGG_VIDEO = (b"theora", b"BBCD", b"OVP80", b"\x01video")
# Frequent other files in media folders, for which FFmpeg need not be asked.
_OTHERS = (
    b"\xff\xd8\xff", b"BM", b"II*\0", b"MM\0*", b"8BPS", b"%PDF", b"%!PS", b"PK\3\4", b"\x1f\x8b",
    b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf", b"Rar!", b"\x28\xb5\x2f\xfd", b"\x93NUMPY", b"PAR1", b"SQLite format 3",
    b"\x89HDF", b"ARROW1", b"\x7fELF", b"MZ", b"\xca\xfe\xba\xbe", b"\xcf\xfa\xed\xfe", b"\xd0\xcf\x11\xe0", b"wOF",
    b"\0\1\0\0\0", b"OTTO", b"bplist", b"\x80\2", b"\x80\3", b"\x80\4", b"\x80\5",
)  # fmt: skip
_STILL_BRANDS = (b"heic", b"heix", b"mif1", b"avif")
# Photos unless they have the mark of a film, which is near the beginning.
_MARKS_OF_FILM = {b"GIF8": (b"NETSCAPE2.0", b"ANIMEXTS1.0"), b"\x89PNG": (b"acTL",)}


def suffix_of(name: str) -> str:
    """The suffix of a path in lower case, with its dot; empty without one."""
    base = name.rpartition("/")[2]
    stem, dot, suffix = base.rpartition(".")
    return f".{suffix.lower()}" if dot and stem else ""


def strip_suffix(path: str) -> str:
    """A path without its suffix, if it is known or looks like one; `Song feat. X` has none."""
    suffix = suffix_of(path)
    if suffix in MEDIA_SUFFIXES or _ARBITRARY_SUFFIX.fullmatch(suffix):
        return path[: -len(suffix)]
    return path


def read_content(path: str) -> Content:
    """Judge a local file by its first bytes.

    Returns:
        `audio` for audio-only formats, `other` for what is certainly not media (text, photo, archive, pipe), `unknown`
        if FFmpeg has to be asked.
    """
    return judge_content(_read_head(path))


def _read_head(path: str) -> bytes:
    """The first bytes of a regular file, none of any other or unreadable one."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116 - a million of them: a Path object takes longer
            return b""
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):
        return b""
    try:
        return os.read(descriptor, _HEAD_BYTES)
    except OSError:
        return b""
    finally:
        os.close(descriptor)


def judge_content(head: bytes) -> Content:
    """Judge a file by its first bytes; see `read_content`."""
    if head.startswith(_AUDIO) or _is_wave(head) or head[4:11] in (b"ftypM4A", b"ftypM4B"):
        return "audio"
    if head.startswith(b"OggS"):
        return "unknown" if any(mark in head for mark in _OGG_VIDEO) else "audio"
    if head.startswith(b"YUV4MPEG2"):  # its header is text, and its frames may be
        return "unknown"
    if marks := _MARKS_OF_FILM.get(head[:4]):
        return "unknown" if any(mark in head for mark in marks) else "other"
    is_photo = (head[4:8] == b"ftyp" and head[8:12] in _STILL_BRANDS) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")
    if head.startswith(_OTHERS) or is_photo or head[257:262] == b"ustar" or _is_text(head):
        return "other"
    has_mpeg_frame = head[:1] == b"\xff" and head[1:2] >= b"\xe2"  # of mp3 and mp2 without tags, and of AAC
    return "audio" if has_mpeg_frame else "unknown"


def _is_wave(head: bytes) -> bool:
    kind = head[:4] + head[8:12]
    return kind in (b"RIFFWAVE", b"RF64WAVE", b"RIFXWAVE", b"BW64WAVE", b"FORMAIFF", b"FORMAIFC")


def _is_text(head: bytes) -> bool:
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return head[2::2].count(0) > 0.4 * len(head[2::2]) or head[3::2].count(0) > 0.4 * len(head[3::2])
    return _CONTROLS.search(head) is None
