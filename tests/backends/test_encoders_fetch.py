"""Fetching a model from the hub: a server of this machine that answers as the hub does."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest
from click.testing import CliRunner

from vmnet_pipeline.backends.encoders.fetch import fetch_model, list_models, read_name, verify_model
from vmnet_pipeline.backends.encoders.source import find_source
from vmnet_pipeline.commands.weights import manage_weights
from vmnet_pipeline.errors import ParameterError, WeightsError

pytestmark = [pytest.mark.process, pytest.mark.long]

REVISION, LATER = "a" * 40, "b" * 40
FILES = {
    "config.json": b'{"model_type": "clip"}',
    "preprocessor_config.json": b"{}",
    "model.safetensors": b"numbers" * 1000,
    "pytorch_model.bin": b"a pickle",
    "onnx/model.onnx": b"another form",
    "README.md": b"---\nlicense: mit\n---\n",
}


class Hub(BaseHTTPRequestHandler):
    """Models `owner/good`, `owner/nc`, `owner/pickled`, `owner/damaged`; `owner/gated` is given out on request."""

    asked: ClassVar[list[str]] = []

    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self.do_GET(with_body=False)

    def do_GET(self, with_body=True):
        self.asked.append(self.path)
        parts = self.path.partition("?")[0].strip("/").split("/")
        owner, name = parts[2:4] if parts[0] == "api" else parts[:2]
        if name == "gated":
            return self.answer(403, b"{}", {"X-Error-Code": "GatedRepo"}, with_body)
        if name not in ("good", "nc", "pickled", "damaged"):
            return self.answer(404, b"{}", {"X-Error-Code": "RepoNotFound"}, with_body)
        if REVISION not in self.path:
            return self.answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"}, with_body)
        files = {key: value for key, value in FILES.items() if name != "pickled" or "safetensors" not in key}
        if parts[0] == "api":
            return self.answer(200, json.dumps(self.describe(owner, name, files)).encode(), {}, with_body)
        content = files["/".join(parts[4:])]
        content = content[::-1] if name == "damaged" and "safetensors" in self.path else content
        etag = hashlib.sha256(content).hexdigest()
        return self.answer(200, content, {"ETag": f'"{etag}"', "X-Repo-Commit": REVISION}, with_body)

    def describe(self, owner, name, files):
        siblings = [{"rfilename": key, "size": len(value), "blobId": "0" * 40} for key, value in files.items()]
        for file in siblings:
            if file["rfilename"].endswith(".safetensors"):
                digest = hashlib.sha256(files[file["rfilename"]]).hexdigest()
                file["lfs"] = {"sha256": digest, "size": file["size"], "pointerSize": 100}
        card = {"license": "cc-by-nc-4.0" if name == "nc" else "mit"}
        return {"id": f"{owner}/{name}", "sha": REVISION, "siblings": siblings, "cardData": card}

    def answer(self, status, content, headers, with_body):
        self.send_response(status)
        for key, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if with_body:
            self.wfile.write(content)


@pytest.fixture(scope="module")
def hub():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


CODE = """
import sys
from vmnet_pipeline.backends.encoders.fetch import fetch_model
from vmnet_pipeline.errors import VmnetError
for name in sys.argv[2:]:
    try:
        print(fetch_model(name, sys.argv[1]))
    except VmnetError as error:
        print(type(error).__name__, error)
"""


def fetch(place, tmp_path, *names):
    """Fetch in a process of its own: the hub's library reads its address when it is imported."""
    environment = {**os.environ, "HF_ENDPOINT": place, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}
    environment.pop("HF_HUB_OFFLINE", None)
    command = [sys.executable, "-c", CODE, str(tmp_path / "weights"), *names]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip().splitlines()


def test_a_model_is_fetched_once_checked_and_recorded(hub, tmp_path):
    weights = tmp_path / "weights"
    Hub.asked.clear()
    (folder,) = fetch(hub, tmp_path, f"owner/good@{REVISION}")
    assert folder == str(weights / "encoders/owner--good" / REVISION)
    names = {path.name for path in (weights / "encoders/owner--good" / REVISION).iterdir()}
    taken = {"config.json", "preprocessor_config.json", "model.safetensors", "README.md", "vmnet.json"}
    assert names - {"model.safetensors.verified.json"} == taken
    assert [path.name for path in (weights / "encoders/owner--good").iterdir()] == [REVISION]
    assert not any("pytorch_model" in path or "onnx" in path for path in Hub.asked)
    n_asked = len(Hub.asked)
    assert fetch(hub, tmp_path, f"owner/good@{REVISION}") == [folder]
    assert len(Hub.asked) == n_asked

    source = find_source("owner/good", REVISION, weights)
    assert (source.revision, source.licence, source.name) == (REVISION, "mit", "owner/good")
    with pytest.raises(WeightsError, match=f"holds revision {REVISION}, not {LATER}"):
        find_source(folder, LATER, weights)
    row = list_models(weights)[-1]
    assert row == {
        "name": "owner--good", "present": True, "licence": "mit", "revision": REVISION, "model": "owner/good",
    }  # fmt: skip
    verify_model(weights / "encoders/owner--good" / REVISION)
    listed = CliRunner().invoke(manage_weights, ["list", "--weights-dir", str(weights)]).output
    assert "owner--good          here  mit            owner/good revision aaaaaaaaaaaa" in listed
    assert "clap                 -     apache-2.0     laion/larger_clap_music revision a0b4534a14f5" in listed
    for arguments in ([], ["owner/good"], [f"owner/good@{REVISION}"]):
        verified = CliRunner().invoke(manage_weights, ["verify", *arguments, "--weights-dir", str(weights)])
        assert "owner/good" in verified.output
        assert verified.output.strip().endswith(": good")
    for name in ("clap", "owner/other", f"owner/good@{LATER}"):
        verified = CliRunner().invoke(manage_weights, ["verify", name, "--weights-dir", str(weights)])
        assert verified.exit_code == 1
        assert f"kedro weights fetch {name}" in verified.output
    (weights / "encoders/owner--good" / REVISION / "config.json").write_text("{}")
    with pytest.raises(WeightsError, match="damaged or another version"):
        verify_model(weights / "encoders/owner--good" / REVISION)


def test_what_the_hub_does_not_give_is_said_in_a_sentence(hub, tmp_path):
    names = ["owner/nobody", "owner/gated", "owner/nc", "owner/pickled", "owner/damaged"]
    lines = fetch(hub, tmp_path, *(f"{name}@{REVISION}" for name in names), f"owner/good@{LATER}")
    expected = [
        "WeightsError the hub has no model owner/nobody, or not for you; correct the name, or set HF_TOKEN",
        "WeightsError owner/gated is given out on request: accept its terms on its page",
        "ParameterError model 'owner/nc' is under cc-by-nc-4.0, not for commercial use",
        f"WeightsError owner/pickled, revision {REVISION}, has no safetensors",
        "WeightsError owner/damaged/model.safetensors: ",
        f"WeightsError owner/good has no revision {LATER}; take one from the list of commits",
    ]
    assert [line[: len(start)] for line, start in zip(lines, expected, strict=True)] == expected
    assert not [*(tmp_path / "weights").glob("encoders/*/*/vmnet.json")]


def test_without_a_network_the_message_says_where_files_go(tmp_path):
    (line,) = fetch("http://127.0.0.1:9", tmp_path, f"owner/good@{REVISION}")
    assert line.startswith(f"WeightsError weights 'owner/good', revision {REVISION}, cannot be fetched (")
    assert line.endswith(f"into {tmp_path}/weights/encoders/owner--good/{REVISION}")


def test_names_that_can_be_fetched(tmp_path):
    assert read_name("clap")[:2] == ("laion/larger_clap_music", "a0b4534a14f58e20944452dff00a22a06ce629d1")
    assert read_name(f"pe-av@{REVISION}") == ("facebook/pe-av-small", REVISION, "apache-2.0")
    for name, message in (("pe-av", "name a revision"), ("x/y", "name a revision"), ("clp", "neither a preset"),
                          ("x/y@main", "40 digits"), ("../x@" + REVISION, "neither a preset")):  # fmt: skip
        with pytest.raises(ParameterError, match=message):
            read_name(name)
    with pytest.raises(ParameterError, match=r"under cc-by-nc-4\.0"):
        fetch_model("mert", tmp_path)
    names = [row["name"] for row in list_models(tmp_path)]
    assert names[:3] == ["clap", "mert", "ast"]
