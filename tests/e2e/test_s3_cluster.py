"""An extraction by the workers of a Dask cluster into an `s3://` store, all servers on loopback."""

import contextlib
import json
import os
import signal
import subprocess
import sys

import pytest
from test_s3 import KEY, N_CLIPS, SECRET, bucket, list_rows, put_clips, s3  # noqa: F401 - two are fixtures

CREDENTIALS = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}


@pytest.fixture
def cluster(project, s3):  # noqa: F811
    """Starts a scheduler and two workers, with or without credentials of the bucket; gives the scheduler's address."""
    started = []

    def start(module, *arguments, environment=None):
        log = (project.folder / f"{len(started)}.log").open("w")
        command = [
            sys.executable,
            "-m",
            f"distributed.cli.{module}",
            "--host",
            "127.0.0.1",
            "--no-dashboard",
            *arguments,
        ]
        environment = {**project.environment, **(environment or {})}
        options = {"cwd": project.folder, "env": environment, "stdout": log, "stderr": log, "start_new_session": True}
        started.append(subprocess.Popen(command, **options))

    def start_cluster(*, knows_bucket):
        from distributed import Client

        place = project.folder / f"scheduler-{knows_bucket}.json"
        endpoint = {"AWS_ENDPOINT_URL": s3.storage_options["endpoint_url"]}
        start("dask_scheduler", "--port", "0", "--scheduler-file", str(place))
        for _ in range(2):
            environment = {**endpoint, **CREDENTIALS} if knows_bucket else endpoint
            start("dask_worker", "--nthreads", "1", "--scheduler-file", str(place), environment=environment)
        with contextlib.ExitStack() as stack:
            while not place.exists() or not place.read_text():
                assert started[-3].poll() is None
            client = stack.enter_context(Client(scheduler_file=str(place), set_as_default=False))
            client.wait_for_workers(2, timeout=120)
            return client.scheduler.address

    yield start_cluster
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
    for process in started:
        process.wait(timeout=60)


@pytest.mark.slow
def test_workers_of_a_cluster_write_to_a_bucket(project, s3, bucket, cluster, tmp_path):  # noqa: F811
    put_clips(s3, bucket, tmp_path / "media")
    given = f"media_dir=s3://{bucket}/media,data_root=s3://{bucket}/project,collection=clips,weights=random"
    project.kedro("run", "--pipeline", "ingest", "--params", given)
    store = f"{bucket}/project/04_feature/clips/musicnn"
    given += ",extract.batch_size=1"

    address = cluster(knows_bucket=False)
    output = project.kedro(
        *("run", "--pipeline", "extract_musicnn", "--params", f"{given},extract.executor.address={address}"), ok=False
    )
    assert "credentials" in output
    assert not list_rows(s3, store)

    address = cluster(knows_bucket=True)
    output = project.kedro(
        *("run", "--pipeline", "extract_musicnn", "--params", f"{given},extract.executor.address={address}")
    )
    assert f"musicnn: {N_CLIPS} items, {N_CLIPS} to extract" in output
    assert len(s3.glob(f"{store}/*.npy")) == N_CLIPS
    assert sorted(name.rpartition("/")[2] for name in s3.find(f"{store}/_index")) == [
        "complete.json",
        "fingerprint.json",
        "rows.parquet",
    ]
    assert json.loads(s3.cat_file(f"{store}/_index/complete.json"))["n_done"] == N_CLIPS
    assert f"{N_CLIPS} checked, 0 wrong" in project.kedro("features", "verify", "--store", f"s3://{store}")
    for path in [*project.folder.glob("*.log"), *project.folder.glob("**/dask-scratch-space/**/*")]:
        assert not path.is_file() or SECRET not in path.read_text(errors="replace")
