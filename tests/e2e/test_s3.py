"""The whole way on `s3://` paths, against an S3 server on loopback."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from vmnet_pipeline.demo import make_clip
from vmnet_pipeline.media.audio import decode_audio

KEY, SECRET = "AKIAHUSHHUSHHUSH0001", "hush+hush/hush0002"
N_CLIPS = 12

SERVER = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def s3():
    """File system of an empty server that ends with the tests."""
    from s3fs import S3FileSystem

    command = [sys.executable, "-c", SERVER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as server:
        port = int(server.stdout.readline())
        options = {"key": KEY, "secret": SECRET, "endpoint_url": f"http://127.0.0.1:{port}"}
        yield S3FileSystem(**options, use_listings_cache=False)
        server.stdin.close()


@pytest.fixture
def bucket(s3, project):
    """A new bucket that the project has the credentials of."""
    name = f"bucket{os.urandom(4).hex()}"
    s3.mkdir(name)
    options = {name: s3.storage_options[name] for name in ("key", "secret", "endpoint_url")}
    (project.folder / "conf/local/credentials.yml").write_text(json.dumps({"storage": {"s3": options}}))
    return name


def put_clips(s3, bucket, folder):
    for k in range(N_CLIPS):
        make_clip(folder / f"{k:02}.mp4", seed=k, duration_s=1.0, width=64, height=48)
        s3.put_file(str(folder / f"{k:02}.mp4"), f"{bucket}/media/{k:02}.mp4")


def list_rows(s3, store):
    """Ids that the index has rows of, as they are in the bucket."""
    s3.invalidate_cache()
    files = s3.glob(f"{store}/_index/rows-*.jsonl")
    return [json.loads(line)["id"] for name in files for line in s3.cat_file(name).splitlines()]


def list_local(folder: Path):
    """Folders with files, without the weights: they and the networks converted from them stay on the machine."""
    data = folder / "data"
    files = [path for path in data.rglob("*") if path.is_file() and data / "06_models/weights" not in path.parents]
    return {path.relative_to(data).parts[0] for path in files}


@pytest.mark.slow
def test_the_whole_project_in_a_bucket(project, s3, bucket, tmp_path):
    put_clips(s3, bucket, tmp_path / "media")
    given = f"media_dir=s3://{bucket}/media,data_root=s3://{bucket}/project,train.epochs=2,weights=random"
    output = project.kedro("run", "--params", given)
    assert f"s3://{bucket}/project/08_reporting/" in output
    files = s3.find(f"{bucket}/project")
    names = [name.rpartition("/")[2] for name in files]
    for name in ("manifest.parquet", "train.csv", "music.npy", "model.safetensors", "evaluation.json", "report.html"):
        assert names.count(name) == 1
    assert sum("/04_feature/" in name and name.endswith(".npy") for name in files) == 2 * N_CLIPS
    assert not [name for name in files if "/claims/" in name]
    assert list_local(project.folder) <= {"cache"}

    again = project.kedro("run", "--params", given)
    assert f"musicnn: {N_CLIPS} items, 0 to extract" in again
    assert "already trained" in again

    searching = project.kedro("run", "--pipelines=embed,index", "--params", given)
    (store,) = {name.rpartition("/")[0] for name in files if "/musicnn/" in name and name.endswith("00.npy")}
    verified = project.kedro("features", "verify", "--store", f"s3://{store}")
    assert f"{N_CLIPS} checked, 0 wrong, 0 unknown" in verified
    for text in (output, again, searching, verified):
        assert KEY not in text
        assert SECRET not in text
    for path in project.folder.rglob("*"):
        if path.is_file() and not path.is_symlink() and path.name != "credentials.yml":
            content = path.read_bytes()
            assert KEY.encode() not in content, path
            assert SECRET.encode() not in content, path
    for name in s3.find(f"{bucket}/project"):
        content = s3.cat_file(name)
        assert KEY.encode() not in content, name
        assert SECRET.encode() not in content, name


@pytest.mark.slow
def test_a_killed_extraction_goes_on_where_it_was(project, s3, bucket, tmp_path):
    put_clips(s3, bucket, tmp_path / "media")
    given = f"media_dir=s3://{bucket}/media,data_root=s3://{bucket}/project,collection=clips,weights=random"
    project.kedro("run", "--pipeline", "ingest", "--params", given)
    store = f"{bucket}/project/04_feature/clips/musicnn"
    # A worker process: it too must have the credentials.
    given += ",extract.executor.kind=processes,extract.n_workers=1,extract.batch_size=1"
    run = project.start("run", "--pipeline", "extract_musicnn", "--params", given)
    deadline = time.monotonic() + 120
    while len(list_rows(s3, store)) < 2 and run.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    done = list_rows(s3, store)
    assert len(done) >= 2
    before = {name: s3.info(f"{store}/{name}.npy")["LastModified"] for name in done}
    output = project.kedro("run", "--pipeline", "extract_musicnn", "--params", given)
    assert f"musicnn: {N_CLIPS} items, {N_CLIPS - len(done)} to extract" in output
    assert {name: s3.info(f"{store}/{name}.npy")["LastModified"] for name in done} == before
    assert len(s3.glob(f"{store}/*.npy")) == N_CLIPS
    assert sorted(name.rpartition("/")[2] for name in s3.find(f"{store}/_index")) == [
        "complete.json",
        "fingerprint.json",
        "rows.parquet",
    ]


def test_only_the_window_is_read(s3, monkeypatch, tmp_path):
    from s3fs.core import S3File
    from scipy.io import wavfile

    from vmnet_pipeline.storage.paths import as_path

    noise = np.random.default_rng(0).normal(0, 3_000, 16_000 * 600).astype(np.int16)
    wavfile.write(tmp_path / "long.wav", 16_000, noise)
    bucket = f"bucket{os.urandom(4).hex()}"
    s3.mkdir(bucket)
    s3.put_file(str(tmp_path / "long.wav"), f"{bucket}/long.wav")
    n_read, fetch = [], S3File._fetch_range

    def count(self, start, end):
        n_read.append(end - start)
        return fetch(self, start, end)

    monkeypatch.setattr(S3File, "_fetch_range", count)
    options = {name: s3.storage_options[name] for name in ("key", "secret", "endpoint_url")}
    monkeypatch.setattr("fsspec.config.conf", {"s3": options})
    url = str(as_path(f"s3://{bucket}/long.wav"))
    sound = decode_audio(url, sample_rate_hz=16_000, max_duration_s=5.0)
    np.testing.assert_array_equal(sound, decode_audio(tmp_path / "long.wav", sample_rate_hz=16_000, max_duration_s=5.0))
    assert 0 < sum(n_read) <= 3 << 20 < (tmp_path / "long.wav").stat().st_size


def test_a_store_that_cannot_be_used_is_found_out_before_anything_else(project, bucket):
    credentials = project.folder / "conf/local/credentials.yml"
    credentials.write_text(credentials.read_text().replace("127.0.0.1:", "127.0.0.1:1"))  # no such port
    given = f"media_dir=s3://{bucket}/media,data_root=s3://{bucket}/project"
    output = project.kedro("run", "--params", given, ok=False)
    assert "StorageError" in output
    assert "credentials.yml" in output
    assert "Traceback" not in output
    assert "step 1 of" not in output
    assert KEY not in output
    assert SECRET not in output
