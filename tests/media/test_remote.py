"""Media in an object store: the same samples as from a local file, and every failure has its reason."""

import struct
import threading
import uuid

import bad_readers
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFile
from hostile import draw_number, encode_video
from scipy.io import wavfile

from vmnet_pipeline.demo import make_clip
from vmnet_pipeline.errors import MediaError
from vmnet_pipeline.media.audio import decode_audio
from vmnet_pipeline.media.probe import checksum_file, probe_media
from vmnet_pipeline.media.sandbox import Sandbox
from vmnet_pipeline.media.video import sample_frames
from vmnet_pipeline.params import LimitParams
from vmnet_pipeline.storage.paths import as_path


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "a.mp4"
    make_clip(path, seed=1, duration_s=2.0, width=64, height=48)
    return path


@pytest.fixture
def remote(clip):
    place = as_path(f"memory://bucket-{uuid.uuid4().hex}/a.mp4")
    place.write_bytes(clip.read_bytes())
    return place


def test_everything_is_as_in_a_local_file(clip, remote):
    assert probe_media(str(remote)) == probe_media(clip)
    sound = decode_audio(str(remote), sample_rate_hz=16_000, max_duration_s=1.0)
    np.testing.assert_array_equal(sound, decode_audio(clip, sample_rate_hz=16_000, max_duration_s=1.0))
    pairs = zip(sample_frames(str(remote), rate_hz=1.0), sample_frames(clip, rate_hz=1.0), strict=True)
    for (_, found), (_, expected) in pairs:
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("none.mp4", None, "missing_file"),
        ("empty.mp4", b"", "empty_file"),
        ("list.m3u8", b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", "unknown_format"),
        ("text.mp4", b"hello", "unknown_format"),
    ],
)
def test_what_is_no_media_file_says_why(remote, name, content, reason):
    path = remote.parent / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(MediaError) as caught:
        probe_media(str(path))
    assert caught.value.reason == reason


def test_a_folder_and_another_kind_of_address_are_refused(remote):
    with pytest.raises(MediaError, match="not a file"):
        checksum_file(str(remote.parent))
    with pytest.raises(MediaError, match="cannot be used"):
        checksum_file("http://127.0.0.1:9/a.mp4")


def test_header_that_leads_to_a_place_no_file_has_is_overcome(remote, tmp_path):
    encode_video(tmp_path / "a.wmv", [draw_number(k) for k in range(3)], codec="wmv2")
    data = bytearray((tmp_path / "a.wmv").read_bytes())
    struct.pack_into("<Q", data, 46, 1 << 62)  # size of the first object in the header
    for path in (tmp_path / "a.wmv", remote.with_name("a.wmv")):
        path.write_bytes(bytes(data))
    assert probe_media(str(remote.with_name("a.wmv"))) == probe_media(tmp_path / "a.wmv")


def test_a_network_that_fails_in_the_middle_is_no_end_of_the_file(remote, tmp_path, monkeypatch):
    """FFmpeg would take it for one, and the features of half a file would be stored as those of the whole."""
    wavfile.write(tmp_path / "a.wav", 16_000, np.zeros(160_000, np.int16))
    path = remote.with_name("a.wav")
    path.write_bytes((tmp_path / "a.wav").read_bytes())
    assert len(decode_audio(str(path), sample_rate_hz=16_000)) == 160_000
    read = MemoryFile.read

    def fail_later(self, size=-1):
        if self.tell() > 200_000:
            raise ConnectionResetError("gone")
        return read(self, size)

    monkeypatch.setattr(MemoryFile, "read", fail_later)
    with pytest.raises(MediaError) as caught:
        decode_audio(str(path), sample_rate_hz=16_000)
    assert caught.value.reason == "unreadable"
    assert "gone" in str(caught.value)


@pytest.fixture
def sandbox():
    with Sandbox(LimitParams(seconds=60)) as sandbox:
        yield sandbox


def list_piece_servers():
    return {thread for thread in threading.enumerate() if thread.name == "media-pieces"}


@pytest.mark.process
def test_a_child_without_network_gets_its_pieces_from_here(clip, remote, sandbox):
    before = list_piece_servers()
    assert sandbox.call(probe_media, str(remote)) == probe_media(clip)
    found = sandbox.call(decode_audio, str(remote), sample_rate_hz=16_000, max_duration_s=1.0)
    np.testing.assert_array_equal(found, decode_audio(clip, sample_rate_hz=16_000, max_duration_s=1.0))
    assert sandbox.call(probe_media, str(clip)).size_bytes == clip.stat().st_size  # the same child, now a local file
    assert len(sandbox._everyone) == 1
    for thread in list_piece_servers() - before:
        thread.join(timeout=30)
        assert not thread.is_alive()


@pytest.mark.process
def test_pieces_are_those_of_the_file(remote, sandbox):
    """Larger than one piece, and read at two places in turn."""
    content = np.random.default_rng(0).bytes(3 * 2**20 + 17)
    path = remote.with_name("a.bin")
    path.write_bytes(content)
    assert sandbox.call(bad_readers.read_in_turn, str(path)) == content + content[::-1][:1]


@pytest.mark.process
def test_a_failure_of_the_store_is_told_through_a_child(remote, sandbox, tmp_path, monkeypatch):
    wavfile.write(tmp_path / "a.wav", 16_000, np.zeros(2_000_000, np.int16))
    path = remote.with_name("a.wav")
    path.write_bytes((tmp_path / "a.wav").read_bytes())
    read = MemoryFile.read

    def fail_later(self, size=-1):
        if self.tell() > 1_500_000:
            raise ConnectionResetError("gone")
        return read(self, size)

    monkeypatch.setattr(MemoryFile, "read", fail_later)
    for name, reason in (("a.wav", "unreadable"), ("none.wav", "missing_file")):
        with pytest.raises(MediaError) as caught:
            sandbox.call(decode_audio, str(remote.with_name(name)), sample_rate_hz=16_000)
        assert caught.value.reason == reason
        assert "gone" in str(caught.value) or name == "none.wav"
    assert sandbox.call(probe_media, str(remote)).video is not None
