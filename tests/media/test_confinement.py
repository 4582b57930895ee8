"""A process that decodes has given up what it does not need: somebody who takes it over gains little."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import escapes
import hostile
import numpy as np
import pytest

from vmnet_pipeline import processes
from vmnet_pipeline.backends.efficientnet import EfficientnetBackend
from vmnet_pipeline.backends.musicnn import MusicnnBackend
from vmnet_pipeline.backends.vggish import VggishBackend
from vmnet_pipeline.errors import MediaError
from vmnet_pipeline.media import sandbox as module
from vmnet_pipeline.media.probe import probe_media
from vmnet_pipeline.media.sandbox import Sandbox
from vmnet_pipeline.media.syscall_filter import GIVEN_UP, build_program
from vmnet_pipeline.media.thumbnails import cut_clip, make_picture
from vmnet_pipeline.params import LimitParams

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a process give up rights"),
]

READING = {"read a secret", "list a folder", "command line of the parent", "list processes", "list connections"}
TRIED = 45


@pytest.fixture
def port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def local_service(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the name of a socket is short
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as service:
        service.bind("log")
        monkeypatch.undo()
        yield service


@pytest.fixture
def folder(tmp_path, local_service):
    for name in ("old.txt", "secret.txt"):
        (tmp_path / name).write_text("kept")
    seen = np.stack([hostile.draw_number(k) for k in range(25)])
    hostile.encode_video(tmp_path / "a.mp4", seen, sound=(hostile.make_sine(1.0, 16_000), 16_000, "aac"))
    return tmp_path


@pytest.fixture
def sandbox():
    with Sandbox(LimitParams(seconds=60)) as sandbox:
        yield sandbox


@pytest.fixture
def as_own(monkeypatch):
    """Take the functions of these tests for functions of the package, which get their file handed."""
    monkeypatch.setattr(module, "name_package", lambda function: "vmnet_pipeline")


def test_nothing_of_all_that_is_tried_comes_through_and_media_are_still_read(sandbox, folder, port, as_own):
    path = str(folder / "a.mp4")
    found = sandbox.call(escapes.try_ways, path, port=port)
    assert len(found) == TRIED
    assert {name: how for name, how in found.items() if how not in ("EPERM", "EACCES")} == {}
    assert (folder / "old.txt").read_text() == "kept"
    assert sorted(entry.name for entry in folder.iterdir()) == ["a.mp4", "log", "old.txt", "secret.txt"]

    assert "wave" in sandbox.call(escapes.use_what_is_left, path)
    info = sandbox.call(probe_media, path)
    assert (info.audio.codec, info.video.codec) == ("aac", "h264")
    assert sandbox.call(make_picture, path)[:2] == b"\xff\xd8"
    assert len(sandbox.call(cut_clip, path)) > 500
    for backend in (MusicnnBackend(), VggishBackend(), EfficientnetBackend()):
        prepared, expected = sandbox.call(backend.prepare, path), backend.prepare(path)
        np.testing.assert_array_equal(prepared.inputs, expected.inputs, strict=True)
        assert prepared.n_valid == expected.n_valid
    assert len(sandbox._everyone) == 1  # all of it in the process that was tried


def test_a_function_of_somebody_else_may_read_by_name_and_nothing_else(sandbox, folder, port):
    found = sandbox.call(escapes.try_ways, str(folder / "a.mp4"), port=port)
    assert {name for name, how in found.items() if how == "through"} == READING


def test_without_confinement_all_of_it_comes_through(folder, port):
    """The attempts are real ones."""
    code = (
        "import sys, json, escapes\n"
        "print(json.dumps(escapes.try_ways(sys.argv[1], port=int(sys.argv[2]), names=sys.argv[3:])))"
    )
    names = ["connect", "open for writing", "new file", "folder", "fork", "program", "signal", "ptrace",
             "environment of the parent", "memory of the parent", "read a secret", "signal by descriptor",
             "signal by pipe", "unix socket", "own memory as a file", "local service", "watch a folder",
             "command line of the parent"]  # fmt: skip
    for path, wanted in ((folder, names[:3]), (folder, names[3:])):
        (path / "new.txt").unlink(missing_ok=True)
        done = run_alone(code, str(path / "a.mp4"), str(port), *wanted)
        assert set(json.loads(done).values()) == {"through"}, done


def run_alone(code, *arguments):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


WITHOUT = """
import sys, json, escapes
from vmnet_pipeline.media import confinement, landlock, syscall_filter
if "Landlock" in sys.argv[3]:
    landlock._CREATE = 9999
if "seccomp" in sys.argv[3]:
    syscall_filter._SECCOMP = (9999, 9999)
lacking = confinement.confine(reads_paths=False)
names = None if sys.argv[3] == "seccomp" else ["connect", "new file", "program", "fork", "signal", "ptrace", "udp"]
found = {} if "," in sys.argv[3] else escapes.try_ways(sys.argv[1], port=int(sys.argv[2]), names=names)
print(json.dumps([lacking, found]))
"""


def test_each_of_the_two_holds_alone_and_what_the_kernel_lacks_is_told(folder, port):
    lacking, found = json.loads(run_alone(WITHOUT, str(folder / "a.mp4"), str(port), "Landlock"))
    assert lacking == ["Landlock: Function not implemented"]
    assert set(found.values()) == {"EPERM"}
    lacking, _ = json.loads(run_alone(WITHOUT, str(folder / "a.mp4"), str(port), "Landlock,seccomp"))
    assert lacking == ["Landlock: Function not implemented", "seccomp: Function not implemented"]


def test_landlock_alone_keeps_files_programs_and_the_parent(folder, port):
    lacking, found = json.loads(run_alone(WITHOUT, str(folder / "a.mp4"), str(port), "seccomp"))
    assert lacking == ["seccomp: Function not implemented"]
    kept = {"open for writing", "new file", "remove", "rename", "folder", "program", "ptrace", "read a secret",
            "list a folder", "memory of the parent", "environment of the parent", "truncate"}  # fmt: skip
    assert {found[name] for name in kept} <= {"EPERM", "EACCES"}


def test_a_system_that_lets_nothing_be_given_up_is_named_once_and_media_are_read(folder, monkeypatch, caplog):
    patched = "from vmnet_pipeline.media import landlock, syscall_filter as s\nlandlock._CREATE = 9999\n"
    patched += "s._SECCOMP = (9999, 9999)\n"
    monkeypatch.setattr(processes, "_PROGRAM", patched + processes._PROGRAM)
    module._warn_of_rights.cache_clear()
    with Sandbox(LimitParams()) as sandbox:
        assert sandbox.call(probe_media, str(folder / "a.mp4")).video is not None
    with Sandbox(LimitParams()) as sandbox:
        sandbox.call(probe_media, str(folder / "a.mp4"))
    assert caplog.text.count("keep unnecessary rights") == 1
    assert "Landlock: Function not implemented; seccomp: Function not implemented" in caplog.text


def test_secrets_in_variables_stay_behind(sandbox, folder, monkeypatch, as_own):
    for name in ("VMNET_API_KEY", "AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(name, "secret")
    assert [
        name
        for name in sandbox.call(escapes.list_variables, str(folder / "a.mp4"))
        if name.startswith(("VMNET", "AWS", "MLFLOW"))
    ] == []


@pytest.mark.parametrize("reader", [escapes.answer_with_noise, escapes.promise_much, escapes.begin_and_stop])
def test_an_answer_that_is_none_is_a_crash(folder, reader):
    with Sandbox(LimitParams(seconds=1.0)) as sandbox, pytest.raises(MediaError) as caught:
        sandbox.call(reader, str(folder / "a.mp4"))
    assert caught.value.reason == "decoder_crashed"


def test_an_answer_runs_nothing_here(sandbox, folder):
    with pytest.raises(MediaError, match="made the decoder fail"):
        sandbox.call(escapes.answer_with_a_pickle, str(folder / "a.mp4"), mark=str(folder / "it-ran"))
    assert not (folder / "it-ran").exists()


@pytest.mark.parametrize("reason", ["x\n2026-01-01 ERROR forged", "x" * 1000, "\x1b[31m", "a b"])
def test_a_reason_that_is_no_word_is_a_crash(sandbox, folder, reason):
    with pytest.raises(MediaError) as caught:
        sandbox.call(escapes.answer_with, str(folder / "a.mp4"), reason=reason, message="x")
    assert caught.value.reason == "decoder_crashed"


def test_a_message_is_one_line(sandbox, folder):
    with pytest.raises(MediaError, match="first  second") as caught:
        sandbox.call(escapes.answer_with, str(folder / "a.mp4"), reason="odd", message="first\n\x1bsecond")
    assert caught.value.reason == "odd"


def test_a_path_that_cannot_be_opened_is_refused_as_without_a_child(sandbox, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").touch()
    for name, reason in (("none", "missing_file"), ("pipe", "not_a_file"), ("empty", "empty_file"), ("", "not_a_file")):
        with pytest.raises(MediaError) as caught:
            sandbox.call(probe_media, str(tmp_path / name))
        assert caught.value.reason == reason


def test_the_filter_has_the_numbers_of_this_machine():
    header = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")
    if not header.exists():
        pytest.skip("there are no headers of the kernel")
    known = dict(line.split()[1:3] for line in header.read_text().splitlines() if line.startswith("#define __NR_"))
    named = {name: numbers[0] for table in GIVEN_UP for name, numbers in table.items()}
    assert {
        name: number for name, number in named.items() if known.get(f"__NR_{name}", str(number)) != str(number)
    } == {}


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_every_jump_of_the_filter_lands_inside(machine):
    program = build_program(machine, 1234)
    assert len(program) < 4096
    for place, (code, if_so, if_not, _) in enumerate(program):
        if code & 7 == 5:
            assert place + 1 + max(if_so, if_not) < len(program)
    assert program[-1][0] == 6
