"""The folder of uploads: full, removed, left behind."""

import errno
import os
import shutil
import tempfile
from pathlib import Path

import httpx
import pytest

from vmnet_pipeline.serving import upload_folder as module
from vmnet_pipeline.serving.errors import RefusedError
from vmnet_pipeline.serving.upload_folder import UploadFolder


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def write(folder, content=b"content"):
    with folder.open_file() as (file, path):
        file.write(content)
        file.flush()
        assert path.read_bytes() == content
        assert path.stat().st_mode & 0o077 == 0
        return path


def test_a_file_is_gone_after_its_upload_and_the_folder_after_the_service(temporary):
    folder = UploadFolder()
    path = write(folder)
    assert not path.exists()
    assert path.parent.stat().st_mode & 0o077 == 0
    assert folder.find_fault() == ""
    folder.remove()
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("what", ["vmnet-uploads-*", "."])
def test_a_folder_that_was_cleaned_away_is_made_anew(temporary, what):
    folder = UploadFolder()
    for place in [temporary] if what == "." else list(temporary.glob(what)):
        shutil.rmtree(place)
    assert folder.find_fault() == ""
    write(folder)
    for place in temporary.iterdir():  # another one of that name, which is not ours
        shutil.rmtree(place)
        place.mkdir()
    write(folder)
    folder.remove()


def test_folders_of_dead_services_are_removed_and_those_of_living_ones_stay(temporary):
    living = UploadFolder()
    dead = temporary / "vmnet-uploads-dead"
    dead.mkdir()
    (dead / "upload-x").write_bytes(b"x" * 1000)
    (temporary / "vmnet-uploads-file").write_bytes(b"")
    (temporary / "elsewhere").mkdir()
    (temporary / "vmnet-uploads-link").symlink_to(temporary / "elsewhere")
    (temporary / "elsewhere/kept").write_bytes(b"")
    second = UploadFolder()
    assert not dead.exists()
    assert (temporary / "elsewhere/kept").exists()
    write(living)
    write(second)
    assert living.path != second.path
    for folder in (living, second):
        folder.remove()


@pytest.mark.parametrize(
    ("number", "status"),
    [(errno.ENOSPC, 507), (errno.EDQUOT, 507), (errno.EFBIG, 507), (errno.EACCES, 503), (errno.EIO, 503)],
)
def test_what_cannot_be_written_is_told(temporary, monkeypatch, number, status):
    folder = UploadFolder()

    def fail(*arguments, **options):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(module.tempfile, "mkstemp", fail)
    with pytest.raises(RefusedError) as caught, folder.open_file():
        pass
    assert (caught.value.status, bool(caught.value.retry_after_s)) == (status, True)
    assert "cannot be written" in folder.find_fault()
    folder.remove()


def test_a_full_disk_is_no_failure_of_the_service(client, live, service, manifest, monkeypatch):
    """Writing fails as on a full disk, whose space ends in the middle of a file."""
    content = Path(manifest.loc["0001", "audio_path"]).read_bytes()
    fdopen = os.fdopen

    class Full:
        def __init__(self, file):
            self._file, self._left = file, 1000

        def __getattr__(self, name):
            return getattr(self._file, name)

        def write(self, data):
            self._left -= len(data)
            if self._left < 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            return self._file.write(data)

    with monkeypatch.context() as patch:
        patch.setattr(module.os, "fdopen", lambda *arguments, **options: Full(fdopen(*arguments, **options)))
        ready = client.get("/readyz")
        assert (ready.status_code, "disk is full" in ready.text) == (503, True)
        for body in ({"content": content}, {"files": {"file": content}}):
            answer = client.post("/v1/embeddings?query=music", **body)
            assert (answer.status_code, answer.json()["error"]["code"]) == (507, "storage_full")
            assert int(answer.headers["retry-after"]) > 0
        assert client.post("/v1/recommendations", json={"id": "0001"}).status_code == 200
        assert client.get("/healthz").status_code == 200
    assert client.get("/readyz").status_code == 200
    assert client.post("/v1/embeddings?query=music", content=content).status_code == 200
    assert list(service.uploads.path.iterdir()) == []
    assert service.metrics.jobs._value.get() == 0


def test_a_disk_that_is_really_full(tmp_path, temporary, monkeypatch):
    """A file system of one MiB, where this process may mount one."""
    import subprocess

    if shutil.which("unshare") is None:
        pytest.skip("no unshare here")
    code = (
        "import sys, tempfile; tempfile.tempdir = sys.argv[1]\n"
        "from vmnet_pipeline.serving.upload_folder import UploadFolder\n"
        "from vmnet_pipeline.serving.errors import RefusedError\n"
        "folder = UploadFolder()\n"
        "print(repr(folder.find_fault()))\n"
        "with folder.open_file() as (file, path):\n"
        "    try:\n"
        "        for _ in range(100): file.write(b'x' * 100_000); file.flush()\n"
        "    except OSError as error: print(error.errno, repr(folder.find_fault()))\n"
        "folder.remove()\n"
    )
    import sys

    command = f'mount -t tmpfs -o size=3m none "{temporary}" && exec "{sys.executable}" -c "$0" "{temporary}"'
    done = subprocess.run(["unshare", "-rm", "sh", "-c", command, code], capture_output=True, text=True)
    if "unshare" in done.stderr or "mount" in done.stderr:
        pytest.skip(f"no file system can be mounted here: {done.stderr}")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "''"
    assert lines[1].startswith(f"{errno.ENOSPC} 'uploads cannot be written")


def test_an_upload_that_is_removed_while_it_is_worked_on_is_not_called_bad(client, service, manifest, monkeypatch):
    from vmnet_pipeline.serving import app

    embed = app._embed

    async def remove_and_embed(task, params, state):
        os.unlink(task.path)  # noqa: PTH108
        return await embed(task, params, state)

    monkeypatch.setattr(app, "_embed", remove_and_embed)
    content = Path(manifest.loc["0001", "audio_path"]).read_bytes()
    answer = client.post("/v1/embeddings?query=music", content=content)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "no_storage")


def test_a_folder_that_is_removed_while_the_service_is_idle(client, service, manifest):
    shutil.rmtree(service.uploads.path)
    assert (
        httpx.get(
            f"{client.base_url}readyz" if str(client.base_url).endswith("/") else f"{client.base_url}/readyz"
        ).status_code
        == 200
    )
    shutil.rmtree(service.uploads.path)
    content = Path(manifest.loc["0001", "audio_path"]).read_bytes()
    assert client.post("/v1/embeddings?query=music", content=content).status_code == 200
