"""Hostile media files, made from clips of the demo synthesis and of other encoders; the same bytes for the same seed.

Every case is one row of a media.csv (`Corpus.rows`), or one name in a folder that is searched (`make_names`).
"""

from __future__ import annotations

import csv
import os
import socket
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[1] / "media"))
import hostile

from vmnet_pipeline.demo import make_clip

FILMS = (".mp4", ".webm", ".mkv")
SOUNDS = (".mp3", ".ogg", ".flac", ".wav")
OTHER_FILMS = {
    ".avi": {"codec": "mpeg4", "sound": "libmp3lame"},
    ".mov": {"codec": "png", "pixel_format": "rgb24", "sound": "aac"},
    ".ts": {"codec": "mpeg2video", "sound": "mp2"},
    ".wmv": {"codec": "wmv2", "sound": "libmp3lame"},
    ".mpg": {"codec": "mpeg1video", "sound": "mp2"},
}
OTHER_SOUNDS = {
    ".m4a": "alac",
    ".aac": "aac",
    ".ac3": "ac3",
    ".aiff": "pcm_s16be",
    ".wv": "wavpack",
    ".opus": "libopus",
}
SAMPLE_FORMATS = {"aac": "fltp", "ac3": "fltp", "alac": "s16p", "wavpack": "s16p", "libopus": "flt"}
EXTREMES = (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
HUGE = (0, 16_000, 16_384, 65_535)


@dataclass(slots=True)
class Corpus:
    """A folder with files and a media.csv.

    Attributes:
        folder: Where it is.
        rows: (id, kind of case, video, audio) of each item, paths as the media.csv has them.
    """

    folder: Path
    rows: list[tuple[str, str, str, str]] = field(default_factory=list)

    def add(self, kind: str, suffix: str, content: bytes, *, is_sound: bool = False) -> Path:
        """Write one file and give it a row; a sound stands beside a good film."""
        path = self.folder / "files" / f"{len(self.rows):05d}{suffix}"
        path.write_bytes(content)
        name = f"files/{path.name}"
        self.name(kind, "good/film.mp4" if is_sound else name, name if is_sound else "")
        return path

    def name(self, kind: str, video: str, audio: str = "") -> None:
        """Give a row to names of files that are there, or not."""
        self.rows.append((f"i{len(self.rows):05d}", kind, video, audio))

    def save(self) -> None:
        """Write the media.csv."""
        with (self.folder / "media.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(("id", "video", "audio"))
            writer.writerows((item_id, video, audio) for item_id, _, video, audio in self.rows)


def make_corpus(folder: Path, *, n_each: int, seed: int, is_small: bool = False) -> Corpus:
    """All cases whose content is hostile.

    Args:
        folder: Empty.
        n_each: Truncations, flips and swaps of each good file.
        seed: Of everything that is drawn.
        is_small: Only the kinds of files of the demo collection, and no bombs, which take their time to make.
    """
    (folder / "files").mkdir(parents=True)
    (folder / "good").mkdir()
    corpus = Corpus(folder)
    goods = make_goods(folder / "good")
    rng = np.random.default_rng(seed)
    damaged = {suffix: goods[suffix] for suffix in (*FILMS, *SOUNDS)} if is_small else goods
    for suffix, content in damaged.items():
        is_sound = suffix in SOUNDS or suffix in OTHER_SOUNDS
        corpus.add("untouched", suffix, content, is_sound=is_sound)
        for kind, damage in (("truncated", truncate), ("bytes flipped", flip)):
            for number in range(n_each):
                corpus.add(kind, suffix, damage(content, rng, number, n_each), is_sound=is_sound)
    add_swaps(corpus, damaged, rng, n_each)
    for add in (add_foreign, add_sizes, add_durations, add_sound_headers, add_paths):
        add(corpus, goods)
    if not is_small:
        add_streams(corpus, goods)
        add_bombs(corpus, goods)
    corpus.save()
    return corpus


def make_goods(folder: Path) -> dict[str, bytes]:
    """One good file of each kind, by suffix; `film.mp4` is the partner of hostile sounds."""
    for suffix in (*FILMS, *SOUNDS):
        make_clip(folder / f"film{suffix}", seed=3, duration_s=1.0, width=64, height=48)
    sound = hostile.make_sine(1.0, 48_000)
    pictures = [hostile.draw_number(k, 48, 64) for k in range(25)]
    for suffix, codecs in OTHER_FILMS.items():
        options = {name: value for name, value in codecs.items() if name != "sound"}
        hostile.encode_video(folder / f"film{suffix}", pictures, sound=(sound, 48_000, codecs["sound"]), **options)
    for suffix, codec in OTHER_SOUNDS.items():
        hostile.encode_sound(
            folder / f"film{suffix}", sound, 48_000, codec, sample_format=SAMPLE_FORMATS.get(codec, "s16")
        )
    return {path.suffix: path.read_bytes() for path in sorted(folder.iterdir())}


# --- damage of every kind of file


def truncate(content: bytes, rng: np.random.Generator, number: int, n_each: int) -> bytes:
    """The first part of a file: every few bytes of its header, then anywhere."""
    if number < n_each // 2:
        return content[: 1 + number * 4]
    return content[: int(rng.integers(1, len(content)))]


def flip(content: bytes, rng: np.random.Generator, number: int, n_each: int) -> bytes:
    """Some bytes changed: in the first half of the cases only in the header."""
    end = min(1_024, len(content)) if number < n_each // 2 else len(content)
    damaged = np.frombuffer(content, np.uint8).copy()
    places = rng.integers(0, end, size=2 ** (number % 7))
    damaged[places] ^= rng.integers(1, 256, size=len(places), dtype=np.uint8)
    return damaged.tobytes()


def add_swaps(corpus: Corpus, goods: dict[str, bytes], rng: np.random.Generator, n_each: int) -> None:
    """Files with the beginning of another kind, and whole files under the suffix of another kind."""
    suffixes = list(goods)
    for suffix in suffixes:
        others = [other for other in suffixes if other != suffix]
        for number in range(n_each // 2):
            other, length = others[number % len(others)], int(2 ** rng.uniform(2, 11))
            corpus.add("header of another kind", suffix, goods[other][:length] + goods[suffix][length:])
        corpus.add("suffix of another kind", others[0], goods[suffix])


# --- cases of their own


def add_foreign(corpus: Corpus, goods: dict[str, bytes]) -> None:
    """Nothing at all, or something else altogether."""
    for suffix in goods:
        corpus.add("zero bytes", suffix, b"")
    playlist = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2.0,\n{}\n#EXT-X-ENDLIST\n"
    contents = {
        "zeros": bytes(100_000),
        "text": b"hello\n" * 5_000,
        "terminal codes": b"\x1b[31mred\x1b[0m\n" * 900,
        "page": b"<!doctype html><html><body>404</body></html>",
        "program": Path(sys.executable).read_bytes()[:200_000],
        "archive": b"PK\x03\x04" + bytes(60),
        "photo": hostile.encode_png(hostile.draw_number(3)),
        "subtitles": b"1\n00:00:00,000 --> 99:59:59,999\nendless\n",
        "playlist of a file": playlist.format("../good/film.ts").encode(),
        "playlist of a device": playlist.format("/dev/zero").encode(),
        "playlist of an address": playlist.format("http://127.0.0.1:9/x.ts").encode(),
        "list of files": b"ffconcat version 1.0\nfile 'film.mp4'\n" * 1_000,
    }
    for content in contents.values():
        for suffix in (".mp4", ".avi", ".ts"):
            corpus.add("something else", suffix, content)


def add_sizes(corpus: Corpus, goods: dict[str, bytes]) -> None:
    """Declared picture sizes from nothing to far too much, in the header and in the stream."""
    avi, mov, mp4, mkv = goods[".avi"], goods[".mov"], goods[".mp4"], goods[".mkv"]
    pairs = [(width, height) for width in HUGE for height in HUGE]
    for width, height in pairs:
        at = avi.index(b"strf") + 12
        corpus.add("declared size", ".avi", patch(avi, at, struct.pack("<II", width, height)))
        at = mp4.index(b"avc1", mp4.index(b"stsd")) + 28
        corpus.add("declared size", ".mp4", patch(mp4, at, struct.pack(">HH", width, height)))
        at = mkv.index(b"\xb0\x81\x40\xba\x81\x30")  # PixelWidth 64, PixelHeight 48
        corpus.add("declared size", ".mkv", grow_mkv_size(mkv, at, width, height))
        size = struct.pack(">II", width, height)
        corpus.add("declared size", ".mov", mov.replace(b"IHDR" + struct.pack(">II", 64, 48), b"IHDR" + size))


def grow_mkv_size(content: bytes, at: int, width: int, height: int) -> bytes:
    """Sizes of one byte each stay so: only their lower bytes count. A wide one takes the place of both."""
    wide = b"\xb0\x82" + struct.pack(">H", width) + b"\xec\x80"  # Void takes what is left
    return patch(
        content, at, wide if width == height else b"\xb0\x81" + bytes([width & 255]) + content[at + 3 : at + 6]
    )


def patch(content: bytes, at: int, new: bytes) -> bytes:
    """`content` with some bytes replaced."""
    return content[:at] + new + content[at + len(new) :]


def box(name: bytes, content: bytes = b"") -> bytes:
    """One box of an MP4 file."""
    return struct.pack(">I", 8 + len(content)) + name + content


def element(name: bytes, content: bytes) -> bytes:
    """One element of a Matroska file."""
    return name + b"\x01" + len(content).to_bytes(7, "big") + content


def add_streams(corpus: Corpus, goods: dict[str, bytes]) -> None:
    """A hundred to a million declared streams."""
    ftyp = box(b"ftyp", b"isom\0\0\0\0isom")
    head = element(b"\x1a\x45\xdf\xa3", b"\x42\x82\x88matroska")
    for n_streams in (100, 10_000, 1_000_000):
        corpus.add("declared streams", ".mp4", ftyp + box(b"moov", box(b"trak") * n_streams))
        track = b"\xae\x8b\xd7\x81\x01\x83\x81\x02\x86\x83A_X"
        corpus.add(
            "declared streams",
            ".mkv",
            head + element(b"\x18\x53\x80\x67", element(b"\x16\x54\xae\x6b", track * n_streams)),
        )
        avi = goods[".avi"]
        at = avi.index(b"avih") + 8 + 24  # how many streams the header tells of
        corpus.add("declared streams", ".avi", patch(avi, at, struct.pack("<I", n_streams)))
        chunk = b"LIST" + struct.pack("<I", 4 + 8 + 56) + b"strlstrh" + struct.pack("<I", 56) + b"auds" + bytes(52)
        head_list = b"hdrl" + avi[20 + 4 : 20 + 4 + 64] + chunk * min(n_streams, 100_000)
        body = b"AVI LIST" + struct.pack("<I", len(head_list)) + head_list
        corpus.add("declared streams", ".avi", b"RIFF" + struct.pack("<I", len(body)) + body)


def add_durations(corpus: Corpus, goods: dict[str, bytes]) -> None:
    """Files that say that they last for ever, are indexed for ever, or end before they begin."""
    mp4, wav, flac, avi = goods[".mp4"], goods[".wav"], goods[".flac"], goods[".avi"]
    for value in EXTREMES:
        for name, offset in ((b"mvhd", 16), (b"mdhd", 16), (b"mvhd", 12), (b"tkhd", 20)):
            corpus.add("declared duration", ".mp4", patch(mp4, mp4.index(name) + 4 + offset, struct.pack(">I", value)))
        for name, offset in (
            (b"stts", 8),
            (b"stts", 12),
            (b"stsz", 4),
            (b"stsz", 8),
            (b"stsc", 8),
            (b"ctts", 8),
            (b"stco", 8),
        ):
            if name in mp4:
                corpus.add(
                    "index of a film", ".mp4", patch(mp4, mp4.index(name) + 4 + offset - 4, struct.pack(">I", value))
                )
        corpus.add("declared duration", ".wav", patch(wav, 40, struct.pack("<I", value)), is_sound=True)
        corpus.add("declared duration", ".wav", patch(wav, 4, struct.pack("<I", value)), is_sound=True)
        at = flac.index(b"fLaC") + 8 + 14
        corpus.add("declared duration", ".flac", patch(flac, at, struct.pack(">I", value)), is_sound=True)
        at = avi.index(b"avih") + 8 + 16
        corpus.add("declared duration", ".avi", patch(avi, at, struct.pack("<I", value)))
    mkv = goods[".mkv"]
    at = mkv.index(b"\x44\x89\x88") + 3
    for value in (float("inf"), float("nan"), -1.0, 1e300, 0.0):
        corpus.add("declared duration", ".mkv", patch(mkv, at, struct.pack(">d", value)))
    ogg = goods[".ogg"]
    for granule in (2**62, 2**63 - 1, -(2**63)):
        at = ogg.rindex(b"OggS") + 6
        corpus.add("declared duration", ".ogg", patch(ogg, at, struct.pack("<q", granule)), is_sound=True)


def add_bombs(corpus: Corpus, goods: dict[str, bytes]) -> None:
    """Little on the disk, much in memory or in time."""
    folder = corpus.folder / "good"
    path = folder / "bomb.mov"
    sound = (hostile.make_sine(1.0, 48_000), 48_000, "aac")
    large = np.zeros((9_984, 9_984, 3), np.uint8)
    hostile.encode_video(path, [large], codec="png", pixel_format="rgb24", sound=sound)
    corpus.add("bomb", ".mov", path.read_bytes())
    path.unlink()
    path = folder / "bomb.flac"
    hour = np.zeros((1, 8_000 * 3_600), np.float32)
    hostile.encode_sound(path, hour, 8_000, "flac", sample_format="s16")
    corpus.add("bomb", ".flac", path.read_bytes(), is_sound=True)
    path.unlink()
    corpus.add("bomb", ".mov", compressed_header(1 << 28, declared=1 << 28))
    corpus.add("bomb", ".mov", compressed_header(1 << 20, declared=0xFFFFFFFF))
    corpus.add("bomb", ".mp3", b"ID3\x04\0\0\x7f\x7f\x7f\x7f" + goods[".mp3"], is_sound=True)
    corpus.add(
        "bomb", ".mp3", b"ID3\x03\0\x80" + bytes([0, 64, 0, 0]) + b"\xff" * (1 << 20) + goods[".mp3"], is_sound=True
    )
    png = hostile.encode_png(hostile.draw_number(1))
    text = b"a\0\0" + zlib.compress(bytes(1 << 27), 9)
    chunk = struct.pack(">I", len(text)) + b"zTXt" + text + struct.pack(">I", zlib.crc32(b"zTXt" + text))
    corpus.add("bomb", ".mp4", png[:33] + chunk + png[33:])
    deep = b""
    for _ in range(20_000):
        deep = struct.pack(">I", min(8 + len(deep), 0xFFFFFFFF)) + b"moov" + deep
    corpus.add("bomb", ".mp4", box(b"ftyp", b"isom\0\0\0\0isom") + deep)


def compressed_header(n_bytes: int, *, declared: int) -> bytes:
    """A QuickTime header that is compressed and tells how long it will be."""
    packed = struct.pack(">I", declared) + zlib.compress(bytes(n_bytes), 9)
    return box(b"ftyp", b"qt  \0\0\0\0qt  ") + box(b"moov", box(b"cmov", box(b"dcom", b"zlib") + box(b"cmvd", packed)))


def add_sound_headers(corpus: Corpus, goods: dict[str, bytes]) -> None:
    """Sample rates, channels and sample sizes that cannot be, and samples that are no numbers."""
    wav = goods[".wav"]
    for value in EXTREMES:
        corpus.add("declared sound", ".wav", patch(wav, 24, struct.pack("<I", value)), is_sound=True)
        for at in (22, 32, 34):
            corpus.add("declared sound", ".wav", patch(wav, at, struct.pack("<H", value & 0xFFFF)), is_sound=True)
    path = corpus.folder / "good" / "numbers.wav"
    for value in (np.nan, np.inf, 3e38):
        hostile.write_float_wav(path, np.full(16_000, value, np.float32), 16_000)
        corpus.add("no numbers", ".wav", path.read_bytes(), is_sound=True)
    path.unlink()


# --- names


def add_paths(corpus: Corpus, goods: dict[str, bytes]) -> None:
    """What a media.csv may name instead of a file."""
    files = corpus.folder / "files"
    (files / "folder.mp4").mkdir()
    make_odd_files(files)
    outside = corpus.folder.parent / "outside.mp4"
    outside.write_bytes(goods[".mp4"])
    names = (
        "a\0b.mp4",
        "\0",
        "files/\nnew\nline.mp4",
        "../outside.mp4",
        "../../../../../../etc/passwd",
        "files/../good/film.mp4",
    )
    names += ("/dev/zero", "/dev/stdin", "/proc/self/mem", "/proc/kmsg", "files/folder.mp4", "files", ".", "~/x.mp4")
    names += (
        "http://127.0.0.1:9/x.mp4",
        "file:///etc/passwd",
        "concat:good/film.ts|good/film.ts",
        "pipe:0",
        "-i",
        "%03d.mp4",
    )
    names += ("files/" + "x" * 300 + ".mp4", "x/" * 3_000 + "x.mp4", "files/none.mp4", "😀.mp4", "\u202egpj.mp4")
    names += tuple(f"files/{name}" for name in sorted(ODD_FILES))
    for name in names:
        corpus.name("named in media.csv", name)


ODD_FILES: dict[str, Callable[[Path], None]] = {
    "fifo.mp4": os.mkfifo,
    "socket.mp4": lambda path: bind_socket(path),
    "link out.mp4": lambda path: path.symlink_to("/etc/passwd"),
    "link to a device.mp4": lambda path: path.symlink_to("/dev/zero"),
    "link to itself.mp4": lambda path: path.symlink_to(path.name),
    "link to nothing.mp4": lambda path: path.symlink_to("nothing"),
    "link to a fifo.mp4": lambda path: path.symlink_to("fifo.mp4"),
    "closed.mp4": lambda path: write_closed(path),
}


def make_odd_files(folder: Path) -> None:
    """What a name may stand for beside a file."""
    for name, make in ODD_FILES.items():
        make(folder / name)


def bind_socket(path: Path) -> None:
    """A socket; its name is bound from inside its folder, as the whole may be too long."""
    here = os.open(".", os.O_RDONLY)
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    finally:
        os.fchdir(here)
        os.close(here)


def write_closed(path: Path) -> None:
    """A file that nobody may read."""
    path.write_bytes(b"x" * 100)
    path.chmod(0)


def make_names(folder: Path, content: bytes) -> dict[bytes, str]:
    """A folder to be searched, full of names; what stands behind most of them is a good film, each a little different.

    Returns:
        Kind of case by name, as it is on the disk, relative to the folder.
    """
    folder.mkdir(parents=True)
    kinds: dict[bytes, str] = {}
    for name in list_names():
        try:
            with open(os.path.join(os.fsencode(folder), name), "wb") as file:  # noqa: PTH118, PTH123 - a name of bytes
                file.write(content + box(b"free", name))
        except OSError:
            continue  # a file system that does not take it
        if not name.startswith(b"."):  # hidden files are left out
            kinds[name] = "name in a folder"
    make_odd_files(folder)
    kinds |= {os.fsencode(name): "no file in a folder" for name in ODD_FILES}
    (folder / "loop").symlink_to(".")
    (folder / "up").symlink_to("..")
    closed = folder / "closed"
    closed.mkdir()
    (closed / "inside.mp4").write_bytes(content)
    closed.chmod(0)
    return kinds


def list_names() -> Iterator[bytes]:
    """Names as bytes, all ending in .mp4."""
    for stem in (
        "new\nline",
        "..",
        "...",
        "a..b",
        " ",
        "a b",
        "tab\tcr\r",
        "😀",
        "é",
        "e\u0301",
        "ß",
        "\u202egpj",
        "-i",
        "--help",
    ):
        yield f"{stem}.mp4".encode()
    for stem in (
        "%s%n%03d",
        "$(reboot)",
        "`id`",
        "'\"",
        "a;b|c&d",
        "*?[x]",
        "\\",
        "con",
        "http:",
        "a:b",
        "<b>x</b>",
        "{path}",
        "\x1b[31m",
        "\x7f",
    ):
        yield f"{stem}.mp4".encode()
    yield b"x" * 251 + b".mp4"
    yield "😀".encode() * 62 + b"xyz.mp4"
    yield b"\xff\xfe not text.mp4"
    yield b"\xc3.mp4"
    yield b"A.mp4"
    yield b"a.MP4"
