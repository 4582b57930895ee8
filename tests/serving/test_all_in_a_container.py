"""The image without Docker: what it copies is there, what it calls exists, its steps work in a fresh environment."""

import fnmatch
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
import yaml
from dockerfile import ROOT, find_healthcheck, find_words, list_copied, read_stages

from vmnet_pipeline.__main__ import make_program
from vmnet_pipeline.serving import server
from vmnet_pipeline.serving.auth import KEY_VARIABLE

BUILD, IMAGE = read_stages((ROOT / "Dockerfile").read_text(encoding="utf-8"))
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
SERVICE = COMPOSE["services"]["service"]
PORT = 8321


def is_ignored(path):
    """Whether `.dockerignore` keeps a file or folder out: the last line that matches decides."""
    ignored = False
    for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines():
        pattern = line.removeprefix("!")
        if line and not line.startswith("#") and any(
            fnmatch.fnmatch(part, pattern) for part in (path, *(str(parent) for parent in Path(path).parents))
        ):  # fmt: skip
            ignored = not line.startswith("!")
    return ignored


def parse(arguments):
    """The parameters of a command of `vmnet-pipeline`; a usage error where it or an option does not exist."""
    program = make_program()
    name, command, rest = program.resolve_command(click.Context(program), arguments)
    return command.make_context(name, list(rest)).params


def test_what_is_copied_is_there_and_nothing_private():
    copied = [source for source, _ in list_copied(BUILD)]
    assert copied
    for source in copied:
        assert (ROOT / source).exists(), source
        assert not is_ignored(source), source
    for private in ("data", ".git", "conf/local/credentials.yml", "mlflow.db", ".venv", ".env"):
        assert is_ignored(private), private
    assert not is_ignored("conf/local/.gitkeep")
    needed = set(re.findall(r"requirements[\w.-]*", re.search(r"^setup:.*?^demo:", make_text(), re.S | re.M)[0]))
    assert needed <= set(copied)


def make_text():
    return (ROOT / "Makefile").read_text(encoding="utf-8")


def test_every_step_is_a_target_of_the_makefile_and_of_the_readme():
    runs = [step.rest for step in BUILD if step.name == "RUN" and step.rest.startswith("make ")]
    assert [shlex.split(run)[1] for run in runs] == ["setup"]
    assert re.search(r"^setup:", make_text(), re.M)
    assert BUILD[0].rest.startswith("${PYTHON_IMAGE}")
    assert re.search(r"^ARG PYTHON_IMAGE=python:3\.\d+\.\d+-slim-\w+$", (ROOT / "Dockerfile").read_text(), re.M)


def test_the_image_runs_the_service_as_nobody_and_writes_below_one_folder():
    assert find_words(IMAGE, "ENTRYPOINT") == ["vmnet-pipeline"]
    params = parse(find_words(IMAGE, "CMD"))
    assert (params["host"], params["port"]) == ("0.0.0.0", PORT)  # noqa: S104 - inside the container
    assert find_words(IMAGE, "EXPOSE") == [str(PORT)]
    user = find_words(IMAGE, "USER")
    assert user != ["0:0"]
    assert find_words(IMAGE, "VOLUME") == find_words(IMAGE, "WORKDIR") == ["/srv/vmnet"]
    assert all(step.options["chown"] in user for step in IMAGE if step.name == "COPY" and "chown" in step.options)


def test_compose_says_the_same():
    assert parse(SERVICE["command"]) == parse(find_words(IMAGE, "CMD"))
    assert SERVICE["ports"] == [f"127.0.0.1:{PORT}:{PORT}"]
    assert SERVICE["environment"] == [KEY_VARIABLE]
    assert int(SERVICE["stop_grace_period"].removesuffix("s")) > server.LINGER_S
    for service in COMPOSE["services"].values():
        assert service["read_only"] is True
        assert [service["user"]] == find_words(IMAGE, "USER")
        assert service["cap_drop"] == ["ALL"]
        assert service["volumes"] == ["work:/srv/vmnet"]
    head = (ROOT / "compose.yaml").read_text(encoding="utf-8").split("x-container")[0]
    for line in re.findall(r"run --rm task (.*?)(?:  |$)", head, re.M):
        parse(shlex.split(line))


def run_healthcheck(python, port):
    command = [word.replace(f":{PORT}/", f":{port}/") for word in find_healthcheck(IMAGE)]
    assert command[0] == "python"
    return subprocess.run([python, *command[1:]], capture_output=True, text=True, timeout=30).returncode


def wait_for(condition, process, seconds):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.5)


def find_port():
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def serve_and_check(program, places, folder):
    """The command of the image in an empty folder, on the loopback, until its health check is content."""
    port = find_port()
    arguments = [*find_words(IMAGE, "CMD"), "--port", str(port)]
    arguments[arguments.index("--host") + 1] = "127.0.0.1"
    arguments += ["--media-dir", str(places.media_roots[0]), "--checkpoint", str(places.checkpoint)]
    arguments += ["--index-dir", str(places.output), "--weights-dir", str(places.weights_dir)]
    assert run_healthcheck(program[0], port) != 0
    folder.mkdir()
    process = subprocess.Popen(
        [*program, *arguments], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        wait_for(lambda: run_healthcheck(program[0], port) == 0, process, 240)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) in (0, -signal.SIGTERM)
    finally:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_the_command_serves_and_the_health_check_sees_it(places, tmp_path):
    program = [sys.executable, "-c", "from vmnet_pipeline.__main__ import main; main()"]
    serve_and_check(program, places, tmp_path / "work")


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("VMNET_FRESH_SETUP"), reason="installs 5 GB; set VMNET_FRESH_SETUP=1")
@pytest.mark.timeout(3600)
def test_the_steps_work_in_a_fresh_environment(places, tmp_path):
    """What the image is made of and nothing else, the steps of the Dockerfile, then its command."""
    fresh = tmp_path / "vmnet"
    fresh.mkdir()
    for source, _ in list_copied(BUILD):
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, fresh / source, ignore=lambda folder, names: find_ignored(folder, names))
        else:
            shutil.copy2(ROOT / source, fresh / source)
    arguments = {step.rest.partition("=")[0]: "" for step in BUILD if step.name == "ARG"}
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    for step in BUILD:
        if step.name == "RUN" and not step.rest.startswith("apt-get"):  # which is for the image's own system
            subprocess.run(step.rest, shell=True, cwd=fresh, check=True, env={**environment, **arguments})  # noqa: S602
    (weights,) = (step.words[0] for step in IMAGE if step.name == "COPY" and step.words[0].endswith("weights"))
    assert any((fresh / Path(weights).relative_to("/opt/vmnet")).iterdir())
    program = [str(fresh / ".venv/bin/python"), str(fresh / ".venv/bin" / find_words(IMAGE, "ENTRYPOINT")[0])]
    serve_and_check(program, places, tmp_path / "work")


def find_ignored(folder, names):
    inside = Path(folder).relative_to(ROOT)
    return [name for name in names if is_ignored(str(inside / name)) or name == "__pycache__"]
