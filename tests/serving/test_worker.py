"""What a worker answers."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from vmnet_pipeline.serving.worker import Task

sys.path.insert(0, str(Path(__file__).parents[1] / "media"))
from bad_readers import hang

FORGED = "x\n2026-01-01 00:00:00 ERROR forged \x1b[31m line\r\t\x00\x7f\u2028"


@pytest.mark.parametrize("number", range(3))
def test_what_a_worker_fails_at_in_its_own_way_is_no_line_of_the_file(number):
    """An error of any library, whose words are those of the file."""
    from vmnet_pipeline.errors import MediaError, VmnetError
    from vmnet_pipeline.serving.worker import _explain

    error = [ValueError(FORGED), VmnetError(FORGED), MediaError("internal_error", FORGED)][number]
    for is_file in (True, False):
        answer = _explain(error, is_file=is_file)
        assert "forged" not in answer.failure
        assert answer.failure.isprintable()


def test_what_libraries_print_of_a_file_goes_nowhere():
    code = (
        "import os, subprocess; from vmnet_pipeline.serving.worker import _silence; _silence()\n"
        "os.write(1, b'forged'); os.write(2, b'forged'); subprocess.run(['echo', 'forged'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout + done.stderr == b""


def test_all_reading_for_one_upload_has_one_budget():
    """Two calls that are each within the limit of one: the second is ended, and the worker goes on."""
    from multiprocessing import Pipe

    from vmnet_pipeline.errors import MediaError
    from vmnet_pipeline.media.sandbox import Sandbox
    from vmnet_pipeline.params import LimitParams
    from vmnet_pipeline.serving import worker

    ended = []

    class Embedder:
        sandbox = Sandbox(LimitParams(seconds=60.0))

        def extract(self, side, path, warnings):
            for _ in range(2):
                try:
                    self.sandbox.call(hang, path)
                except MediaError as error:
                    ended.append(error.reason)
            raise MediaError("timed_out", path)

    ours, theirs = Pipe()
    with Embedder.sandbox:
        Embedder.sandbox.start(1)
        thread = threading.Thread(daemon=True, target=worker._answer_all, args=(theirs, Embedder(), 1.0))
        thread.start()
        before, worker._check_media = worker._check_media, lambda *arguments: None
        try:
            for n in (1, 2):
                began = time.monotonic()
                ours.send(Task("music", path=__file__))
                assert ours.poll(50)
                assert ours.recv().reason == "timed_out"
                assert ended == ["timed_out"] * 2 * n
                assert time.monotonic() - began < 40  # two times the limit of one call would be 120 s
        finally:
            worker._check_media = before
        ours.close()
        thread.join()
