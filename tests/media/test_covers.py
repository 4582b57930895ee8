"""Covers of tracks: pictures attached to files that were made here."""

import io

import numpy as np
import pytest
from PIL import Image

from cover_files import draw, write_track
from vmnet_pipeline.errors import MediaError
from vmnet_pipeline.media.covers import read_cover


@pytest.mark.parametrize(("name", "form", "codec"), [("a.mp3", "JPEG", "mjpeg"), ("a.mp3", "PNG", "png"),
                                                      ("a.flac", "PNG", "png")])  # fmt: skip
def test_the_attached_picture_becomes_a_small_jpeg(tmp_path, name, form, codec):
    cover = read_cover(write_track(tmp_path / name, draw(form), codec))
    with Image.open(io.BytesIO(cover)) as picture:
        assert (picture.format, picture.size) == ("JPEG", (160, 120))
        assert np.allclose(np.asarray(picture)[60, 80], (200, 30, 90), atol=8)


def test_tracks_without_a_picture_and_with_a_damaged_one(tmp_path):
    assert read_cover(write_track(tmp_path / "plain.mp3")) == b""
    whole = write_track(tmp_path / "a.mp3", draw("JPEG")).read_bytes()
    place = whole.index(b"\xff\xd8\xff")
    (tmp_path / "damaged.mp3").write_bytes(whole[: place + 4] + bytes(300) + whole[place + 304 :])
    assert read_cover(tmp_path / "damaged.mp3") == b""


def test_a_picture_of_too_many_pixels_is_left_out(tmp_path):
    assert read_cover(write_track(tmp_path / "a.mp3", draw("PNG", (9000, 9000)), "png")) == b""


def test_what_is_no_media_is_refused(tmp_path):
    (tmp_path / "a.mp3").write_bytes(b"words, not a song" * 99)
    with pytest.raises(MediaError):
        read_cover(tmp_path / "a.mp3")
