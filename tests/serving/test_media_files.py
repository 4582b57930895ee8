"""Media are sent from the file that was checked, whatever is done to its name meanwhile."""

import dataclasses
import os
import threading
from types import SimpleNamespace

import httpx
import pandas as pd
import pytest
from serving_collection import run_live

from vmnet_pipeline.serving.config import ServeParams
from vmnet_pipeline.serving.media_files import open_below

GOOD, SECRET = b"good" * 50_000, b"secret" * 40_000


def read(file):
    if file is None:
        return None
    with file:
        return file.read()


@pytest.fixture
def tree(tmp_path):
    """A root, a second one, and what lies outside."""
    for name in ("root/inner", "second", "outside/inner"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "root/inner/clip.mp4").write_bytes(GOOD)
    (tmp_path / "second/clip.mp4").write_bytes(GOOD)
    (tmp_path / "outside/inner/clip.mp4").write_bytes(SECRET)
    return tmp_path


def test_links_are_followed_inside_the_roots_only(tree):
    root, roots = tree / "root", (tree / "root", tree / "second")
    links = {
        "absolute": (root / "inner/clip.mp4", GOOD),
        "relative": ("inner/clip.mp4", GOOD),
        "to-second": (tree / "second/clip.mp4", GOOD),
        "out": (tree / "outside/inner/clip.mp4", None),
        "out-relative": ("../outside/inner/clip.mp4", None),
        "chain": ("out", None),
        "circle": ("circle", None),
        "to-nothing": ("nothing", None),
        "proc": ("/proc/self/environ", None),
    }
    for name, (place, content) in links.items():
        (root / name).symlink_to(place)
        assert read(open_below(root / name, roots)) == content, name
    (root / "folder").symlink_to(tree / "outside/inner")
    (root / "good-folder").symlink_to("inner")
    assert open_below(root / "folder/clip.mp4", roots) is None
    assert read(open_below(root / "good-folder/clip.mp4", roots)) == GOOD
    assert read(open_below(root / "inner/../inner/clip.mp4", roots)) == GOOD


def test_what_is_no_file_is_not_opened(tree):
    root = tree / "root"
    os.mkfifo(root / "pipe")  # to open it would wait for a writer
    for name in ("pipe", "inner", ".", "nothing", "../outside/inner/clip.mp4", "clip\0.mp4"):
        assert open_below(root / name, (root,)) is None, name
    assert open_below(root / "inner/clip.mp4", ()) is None
    root_link = tree / "link"
    root_link.symlink_to(root)
    assert read(open_below(root_link / "inner/clip.mp4", (root_link,))) == GOOD


def test_a_link_that_is_put_there_after_the_check_is_not_followed(tree, monkeypatch):
    """What `resolve` has seen is changed before the file is opened: the file itself, and a folder above it."""
    from pathlib import Path

    root, resolve = tree / "root", Path.resolve
    outside = tree / "outside"
    for swapped, target in ((root / "inner/clip.mp4", outside / "inner/clip.mp4"), (root / "inner", outside / "inner")):

        def resolve_and_swap(path, *arguments, swapped=swapped, target=target, **options):
            found = resolve(path, *arguments, **options)
            if found.name == "clip.mp4":
                swapped.rename(tree / "kept")
                swapped.symlink_to(target)
            return found

        with monkeypatch.context() as patch:
            patch.setattr(Path, "resolve", resolve_and_swap)
            assert open_below(root / "inner/clip.mp4", (root,)) is None
        swapped.unlink()
        (tree / "kept").rename(swapped)
        assert read(open_below(root / "inner/clip.mp4", (root,))) == GOOD


@pytest.fixture
def swapped(places, tmp_path, tree):
    """A service of one clip, whose name is by turns a file and a link to a secret."""
    from vmnet_pipeline.serving.state import Service

    clip, spare, link = tree / "root/inner/clip.mp4", tree / "root/inner/spare", tree / "root/inner/link"
    manifest = pd.read_parquet(places.manifest)
    manifest["video_path"] = str(clip)
    manifest.to_parquet(tmp_path / "manifest.parquet")
    moved = dataclasses.replace(places, manifest=tmp_path / "manifest.parquet", media_roots=(tree / "root",))
    ending = threading.Event()

    def swap():
        while not ending.is_set():
            link.symlink_to(tree / "outside/inner/clip.mp4")
            link.replace(clip)
            spare.write_bytes(GOOD)
            spare.replace(clip)

    thread = threading.Thread(daemon=True, target=swap)
    service = Service(moved, ServeParams())
    with run_live(service, lifespan="off") as address:
        thread.start()
        yield address
        ending.set()
        thread.join()
    service.uploads.remove()


def test_a_file_that_is_swapped_for_a_link_is_never_sent(swapped):
    seen = set()
    with httpx.Client(base_url=swapped, timeout=60) as client:
        for number in range(300):
            headers = {"range": f"bytes={number}-{number + 99}"} if number % 2 else {}
            answer = client.get("/v1/items/0001/media?side=video", headers=headers)
            seen.add(answer.status_code)
            assert b"secret" not in answer.content
            if answer.status_code == 200:
                assert answer.content == GOOD
    assert seen <= {200, 206, 404}
    assert {200, 206} <= seen


@pytest.mark.parametrize("time_s", [-(10**10), 10**11, 2**40])
def test_a_file_of_any_time_is_sent(tree, monkeypatch, time_s):
    """No disk of this machine may take such a time."""
    from starlette.datastructures import Headers

    from vmnet_pipeline.serving import media_files

    known = SimpleNamespace(st_size=7, st_mtime=float(time_s), st_mtime_ns=time_s * 10**9)
    monkeypatch.setattr(media_files.os, "fstat", lambda handle: known)
    with (tree / "root/inner/clip.mp4").open("rb") as file:
        response = media_files.MediaResponse(file, ".mp4", Headers({"range": "bytes=1-2"}))
    assert response.headers["last-modified"].endswith("GMT")
    assert response.headers["content-range"] == "bytes 1-2/7"


def test_a_file_that_becomes_shorter_ends_its_answer(tree):
    """The client is told by a connection that ends, not by zeros."""
    from starlette.datastructures import Headers

    from vmnet_pipeline.serving.media_files import MediaResponse

    clip = tree / "root/inner/clip.mp4"
    response = MediaResponse(open_below(clip, (tree / "root",)), ".mp4", Headers({}))
    clip.write_bytes(b"")

    async def send(message):
        pass

    import asyncio

    with pytest.raises(OSError, match="shorter"):
        asyncio.run(response({"type": "http"}, None, send))
