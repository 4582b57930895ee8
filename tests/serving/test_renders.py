"""The queue of renders: order, limits, cancelling, failures, removal."""

import threading
import time
from contextlib import ExitStack

import pytest

from vmnet_pipeline.demo import make_clip
from vmnet_pipeline.params import MixParams
from vmnet_pipeline.serving.errors import RefusedError
from vmnet_pipeline.serving.renders import Order, RenderQueue

SETTINGS = MixParams.model_validate({"own_sound": "mute"})


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    folder = tmp_path_factory.mktemp("media")
    film = make_clip(folder / "film.webm", duration_s=1.0, with_audio=False)
    return film, make_clip(folder / "song.mp3", seed=2, duration_s=3.0)


@pytest.fixture
def queue():
    queue = RenderQueue(max_jobs=2, keep_s=60.0, max_bytes=1 << 30)
    yield queue
    queue.close()
    assert not queue.folder.path.exists()


def order(media, **changes):
    video, music = media
    return Order(**{"video": video, "music": music, "start_s": 0.5, "settings": SETTINGS, "suffix": ".webm"} | changes)


def wait(queue, token, *states):
    deadline = time.monotonic() + 120
    while queue.find(token).state not in states:
        assert time.monotonic() < deadline, queue.find(token)
        time.sleep(0.02)
    return queue.find(token)


def test_a_video_is_rendered_and_what_was_held_is_released(queue, media):
    held, released = ExitStack(), threading.Event()
    held.callback(released.set)
    job = wait(queue, queue.add(order(media), held), "done", "failed")
    assert (job.state, job.message) == ("done", "") and released.is_set()
    assert job.path.stat().st_size == job.size > 1000 and job.progress == 1.0
    assert job.report.passages[0].start_s == pytest.approx(0.5, abs=0.001)
    assert [path.name for path in queue.folder.path.iterdir()] == [job.path.name]


def test_a_format_that_cannot_hold_the_frames_becomes_matroska(queue, media):
    job = wait(queue, queue.add(order(media, suffix=".mp4"), ExitStack()), "done", "failed")
    assert job.state == "done" and job.path.suffix in (".mp4", ".mkv")
    film = make_clip(media[0].with_name("film.mp4"), duration_s=1.0, with_audio=False)
    job = wait(queue, queue.add(order((film, media[1]), suffix=".webm"), ExitStack()), "done", "failed")
    assert (job.state, job.path.suffix) == ("done", ".mkv")  # H.264 in WebM is not possible


def test_too_many_are_refused_and_a_waiting_one_is_cancelled(queue, media):
    first = queue.add(order(media), ExitStack())
    second = queue.add(order(media), ExitStack())
    assert queue.count_before(second) in (0, 1)
    with pytest.raises(RefusedError) as refused:
        queue.add(order(media), ExitStack())
    assert (refused.value.status, refused.value.retry_after_s) == (429, 20)
    queue.cancel(second)
    assert wait(queue, first, "done", "failed").state == "done"
    assert wait(queue, second, "cancelled", "done").state == "cancelled"
    assert queue.find(second).path is None


def test_a_running_one_is_cancelled_and_leaves_nothing(queue, media, tmp_path):
    long = make_clip(tmp_path / "long.webm", duration_s=12.0, with_audio=False, width=64, height=64)
    token = queue.add(order((long, media[1])), ExitStack())
    wait(queue, token, "running")
    queue.cancel(token)
    assert wait(queue, token, "cancelled", "done", "failed").state == "cancelled"
    assert [*queue.folder.path.iterdir()] == []


def test_failures_are_told_without_paths_and_the_next_one_runs(queue, media, tmp_path):
    (tmp_path / "secret.mp3").write_bytes(b"words" * 99)
    bad = wait(queue, queue.add(order((media[0], tmp_path / "secret.mp3")), ExitStack()), "failed", "done")
    late = wait(queue, queue.add(order(media, start_s=99.0), ExitStack()), "failed", "done")
    assert bad.message == "Not a readable video or audio file."
    assert late.message == "The music ends before this place; choose an earlier one."
    assert wait(queue, queue.add(order(media), ExitStack()), "done", "failed").state == "done"
    with pytest.raises(RefusedError, match="not here any more"):
        queue.find("nothing")


def test_results_are_removed_after_their_time_and_when_there_are_too_many(media):
    queue = RenderQueue(max_jobs=2, keep_s=60.0, max_bytes=1)
    try:
        first = queue.add(order(media), ExitStack())
        wait(queue, first, "done")
        second = queue.add(order(media), ExitStack())
        wait(queue, second, "done")
        queue.remove_old()
        with pytest.raises(RefusedError):
            queue.find(first)
        queue.find(second).ends = 0.0
        queue.remove_old()
        assert [*queue.folder.path.iterdir()] == []
    finally:
        queue.close()
