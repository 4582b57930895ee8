"""Features of whole files: the rows of a stream are those of the usual window, and go on to the end."""

from __future__ import annotations

import numpy as np
import pytest

from vmnet_pipeline.backends import efficientnet, musicnn, vggish
from vmnet_pipeline.backends.descriptors import audio
from vmnet_pipeline.backends.framing import count_pieces, cut_windows
from vmnet_pipeline.backends.registry import make_backend
from vmnet_pipeline.backends.whole_file import WholeFileBackend
from vmnet_pipeline.demo.clip import make_clip
from vmnet_pipeline.errors import ParameterError
from vmnet_pipeline.media.audio import decode_audio, stream_audio
from vmnet_pipeline.params import PieceParams

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return str(make_clip(tmp_path_factory.mktemp("clips") / "clip.mp4", duration_s=23.0, width=64, height=36))


def make(name, **params):
    return make_backend({"backend": name, "weights_dir": "weights", "weights": "random", **params})


def stream_inputs(name, path, **params):
    parts = list(make(name, **params).stream(path, 10.0, 5.0))
    return np.concatenate([part.inputs for part in parts if len(part.inputs)])


@pytest.mark.parametrize(("window", "hop", "n"), [(4, 2, 11), (4, 4, 8), (5, 3, 3), (4, 2, 0), (3, 1, 4)])
def test_windows_cover_a_signal_whatever_its_blocks(window, hop, n):
    signal = np.arange(n, dtype=np.float32)
    for size in (1, 3, 20):
        found = list(cut_windows([signal[i : i + size] for i in range(0, n, size)], window, hop))
        expected = [signal[i : i + window] for i in range(0, n, hop)][: count_pieces(n, window, hop) if n else 0]
        assert [part.tolist() for part in found] == [part.tolist() for part in expected]


@pytest.mark.parametrize(("name", "n_rows"), [("efficientnet", 66), ("descriptors_video", 13)])
def test_a_video_is_read_beyond_the_usual_minute(tmp_path, name, n_rows):
    """66 s: a frame every second, or a piece of 10 s every 5 s."""
    path = str(
        make_clip(tmp_path / "long.mp4", duration_s=66.0, width=64, height=36, frame_rate_hz=5, with_audio=False)
    )
    assert len(stream_inputs(name, path)) == n_rows


@pytest.mark.parametrize(("name", "n_rows"), [("vggish", 72), ("musicnn", 23), ("descriptors_audio", 13)])
def test_audio_is_read_beyond_the_usual_minute(tmp_path, name, n_rows):
    path = str(make_clip(tmp_path / "long.wav", duration_s=70.0, sample_rate_hz=16_000, channels=1))
    assert len(stream_inputs(name, path)) == n_rows


def test_a_stream_of_audio_is_the_whole_audio(clip):
    whole = decode_audio(clip, sample_rate_hz=16_000)
    np.testing.assert_array_equal(np.concatenate(list(stream_audio(clip, sample_rate_hz=16_000))), whole)


@pytest.fixture(params=[2, 32])
def batch_steps(request, monkeypatch):
    """Batches that end within the clip, and one that does not."""
    for module in (musicnn, vggish, efficientnet):
        monkeypatch.setattr(module, "BATCH_STEPS", request.param)


@pytest.mark.usefixtures("batch_steps")
@pytest.mark.parametrize("name", ["musicnn", "efficientnet"])
def test_steps_are_those_of_the_window_and_go_on(clip, name):
    own = make(name, max_duration_s=9.0).prepare(clip).inputs
    found = stream_inputs(name, clip)
    whole = make(name, max_duration_s=300.0).prepare(clip).inputs
    assert len(found) == len(whole) > len(own)
    np.testing.assert_allclose(found, whole, atol=1e-5)


@pytest.mark.usefixtures("batch_steps")
def test_patches_of_vggish_go_on_beyond_its_window(clip):
    found = stream_inputs("vggish", clip)
    own = make("vggish", max_duration_s=12.0).prepare(clip).inputs
    assert (len(own), len(found)) == (12, 23)
    np.testing.assert_allclose(found[:12], own, atol=1e-5)


def test_descriptors_are_made_of_each_piece(clip):
    samples = decode_audio(clip, sample_rate_hz=audio.SAMPLE_RATE_HZ)
    found = stream_inputs("descriptors_audio", clip)
    n = audio.SAMPLE_RATE_HZ
    assert len(found) == count_pieces(len(samples) / n, 10.0, 5.0) == 4
    np.testing.assert_allclose(found[1], audio.describe_audio(audio.measure_curves(samples[5 * n : 15 * n])), rtol=1e-4)
    assert len(stream_inputs("descriptors_video", clip)) == 4


@pytest.mark.parametrize("name", ["musicnn", "vggish", "descriptors_audio", "descriptors_video", "efficientnet"])
def test_a_short_file_has_one_piece(tmp_path, name):
    path = str(make_clip(tmp_path / "short.mp4", duration_s=0.5, width=64, height=36))
    backend = WholeFileBackend(make(name), PieceParams())
    backend.inner.infer = lambda inputs: inputs.reshape(len(inputs), -1)[:, :4].astype(np.float32)
    if hasattr(backend.inner, "reduce_steps"):
        backend.inner.reduce_steps = lambda outputs: outputs
    backend.inner.load = lambda: None
    backend.load()
    feature = backend.read(path).inputs
    assert len(backend.cut(feature)) == 1
    assert np.isfinite(feature).all()


def test_rows_of_steps_are_cut_into_overlapping_pieces():
    backend = WholeFileBackend(make("efficientnet"), PieceParams(window_s=4, hop_s=2))
    cut = backend.cut(np.arange(9, dtype=np.float32)[:, None])
    assert [part.ravel().tolist() for part in cut] == [[0, 1, 2, 3], [2, 3, 4, 5], [4, 5, 6, 7], [6, 7, 8]]


def test_the_identity_does_not_depend_on_a_window_that_is_not_used():
    one, other = (WholeFileBackend(make("musicnn", max_duration_s=s), PieceParams()).fingerprint() for s in (9.0, 90.0))
    assert one.digest == other.digest != make("musicnn").fingerprint().digest
    pieces = (PieceParams(), PieceParams(hop_s=2.0))
    steps, rows = (
        [WholeFileBackend(make(n), p).fingerprint().digest for p in pieces] for n in ("musicnn", "descriptors_audio")
    )
    assert steps[0] == steps[1]  # pieces of steps are cut later
    assert rows[0] != rows[1]


def test_a_backend_that_cannot_stream_is_refused():
    class Plain:
        name = "plain"

    with pytest.raises(ParameterError, match="method `stream`"):
        WholeFileBackend(Plain(), PieceParams())
