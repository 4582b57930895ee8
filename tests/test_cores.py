"""Cores: a container's cpuset and quota count, not the machine."""

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from tiny_features import make_feature, write_features
from vmnet_pipeline import cores
from vmnet_pipeline.backends.engine import BackendParams, choose_threads
from vmnet_pipeline.features.maintenance import verify_store
from vmnet_pipeline.features.store import FeatureStore
from vmnet_pipeline.ingestion.probing import checksum_files
from vmnet_pipeline.serving.metrics import Metrics
from vmnet_pipeline.serving.worker_pool import EmbeddingPool

N_MACHINE = 64


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine of many cores; `limit` puts this process into a container: a cpuset, and files of cgroups."""
    (tmp_path / "groups").write_text("")
    monkeypatch.setattr(cores, "_CGROUPS", tmp_path / "groups")
    monkeypatch.setattr(cores, "_MOUNT", tmp_path)
    monkeypatch.setattr(os, "cpu_count", lambda: N_MACHINE)

    def limit(cpuset=N_MACHINE, groups="", **files):
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cpuset)), raising=False)
        (tmp_path / "groups").write_text(groups)
        for name, content in files.items():
            path = tmp_path / name.replace("__", "/").replace("cpu_", "cpu.")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)

    limit()
    yield limit
    cores.limit_cores(None)


V1 = "4:memory:/docker/a\n3:cpu,cpuacct:/docker/a\n1:cpuset:/docker/a\n"


def test_each_controller_of_version_1_has_a_folder_of_its_own(machine, tmp_path):
    machine(groups=V1)
    assert cores.list_groups("memory")[0] == tmp_path / "memory/docker/a"
    assert cores.list_groups("cpu")[0] == tmp_path / "cpu,cpuacct/docker/a"


@pytest.mark.parametrize(
    "n, limits",
    [
        (64, {}),
        (2, {"cpuset": 2}),
        (3, {"groups": "0::/\n", "cpu_max": "250000 100000\n"}),  # 2.5 cores of time use three threads
        (1, {"groups": "0::/\n", "cpu_max": "10000 100000\n"}),
        (64, {"groups": "0::/\n", "cpu_max": "max 100000\n"}),
        (2, {"cpuset": 2, "groups": "0::/\n", "cpu_max": "800000 100000\n"}),
        (4, {"groups": "0::/pod/box\n", "pod__cpu_max": "400000 100000", "pod__box__cpu_max": "max 100000"}),
        (5, {"groups": V1, "cpu,cpuacct__cpu_cfs_quota_us": "500000", "cpu,cpuacct__cpu_cfs_period_us": "100000"}),
        (64, {"groups": V1, "cpu,cpuacct__cpu_cfs_quota_us": "-1", "cpu,cpuacct__cpu_cfs_period_us": "100000"}),
        (64, {"groups": "0::/\n", "cpu_max": "junk"}),
        (64, {"groups": "junk\n"}),
    ],
)
def test_the_least_of_cpuset_and_quotas_counts(machine, n, limits):
    machine(**limits)
    assert cores.count_cores() == n


def test_a_worker_has_its_share(machine):
    machine(cpuset=8)
    assert choose_threads(BackendParams()) is None  # libraries know a cpuset
    cores.limit_cores(2)
    assert cores.count_cores() == choose_threads(BackendParams()) == 2
    cores.limit_cores(16)
    assert cores.count_cores() == 8


def test_engines_are_told_of_a_quota(machine):
    machine(groups="0::/\n", cpu_max="300000 100000")
    assert choose_threads(BackendParams()) == 3
    assert choose_threads(BackendParams(n_threads=7)) == 7


@pytest.fixture
def started(monkeypatch):
    """Numbers of threads of the pools that are made."""
    found, init = [], ThreadPoolExecutor.__init__

    def count(pool, max_workers=None, *arguments, **options):
        found.append(max_workers)
        init(pool, max_workers, *arguments, **options)

    monkeypatch.setattr(ThreadPoolExecutor, "__init__", count)
    return found


def test_verification_starts_as_many_threads_as_there_are_cores(machine, started, tmp_path):
    write_features(tmp_path / "store", make_feature("a", "sum-a"))
    started.clear()
    machine(cpuset=3)
    assert verify_store(FeatureStore(tmp_path / "store")).n_checked == 1
    assert started[-1] == 3


def test_probing_starts_as_many_threads_as_there_are_cores(machine, started, tmp_path):
    machine(cpuset=3)
    path = tmp_path / "a.wav"
    path.write_bytes(b"content")
    assert len(checksum_files([str(path)])) == 1
    assert started[-1] == 3


def test_workers_of_the_service_share_the_cores(machine, tmp_path):
    machine(cpuset=6)
    pool = EmbeddingPool(tmp_path, tmp_path, n_workers=2, max_waiting=1, file_timeout_s=1.0, metrics=Metrics())
    assert [worker._arguments[2] for worker in pool._workers] == [3, 3]
    pool.close()
