import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from tiny_features import make_feature, write_features
from vmnet_pipeline.cli import cli
from vmnet_pipeline.errors import FeatureStoreError
from vmnet_pipeline.extraction.planning import find_unfinished
from vmnet_pipeline.features.maintenance import collect_garbage, describe_store, drop_broken, verify_store
from vmnet_pipeline.features.store import FeatureChunk, FeatureResult, FeatureRow, FeatureStore
from vmnet_pipeline.storage.paths import (
    list_files,
)
from vmnet_pipeline.types import Fingerprint, MediaItem


@pytest.fixture
def store(tmp_path):
    """Three features and two failures, of two kinds."""
    folder = tmp_path / "data" / "04_feature" / "demo" / "toy"
    done = [FeatureResult(FeatureRow(name, "done", f"sum-{name}"), np.ones((2, 3), np.float32)) for name in "abc"]
    failed = [
        FeatureResult(FeatureRow(f"bad-{k}", "failed", f"sum-{k}", reason=reason, error="x"), None)
        for k, reason in enumerate(["undecodable_audio", "empty_file"])
    ]
    FeatureStore(folder).write(FeatureChunk(Fingerprint("toy"), (*done, *failed)))
    return FeatureStore(folder)


def run(store, *arguments):
    result = CliRunner().invoke(cli, ["features", *arguments, "--store", str(store.folder)])
    return result.exit_code, result.output


def damage(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_status_counts_and_names_the_reasons(store):
    status = describe_store(store)
    assert (status.n_done, status.is_complete) == (3, False)
    assert status.failures_by_reason == {"empty_file": 1, "undecodable_audio": 1}
    assert status.size_bytes == 3 * (store.folder / "a.npy").stat().st_size
    code, output = run(store, "status")
    assert code == 0
    assert "not complete, toy" in output
    assert "1 x undecodable_audio" in output


def test_verify_finds_what_is_wrong_and_repair_has_it_extracted_again(store):
    assert run(store, "verify") == (0, f"{store.folder}: 3 checked, 0 wrong, 0 unknown\n")
    damage(store.folder / "a.npy")
    (store.folder / "b.npy").unlink()
    (store.folder / "note.txt").write_text("x")
    found = verify_store(store)
    assert (found.damaged, found.missing, found.unknown) == (("a",), ("b",), ("note.txt",))
    code, output = run(store, "verify", "--repair")
    assert code == 1
    assert "2 dropped" in output
    items = [MediaItem(name, name, f"sum-{name}") for name in "abc"]
    assert [item.id for item in find_unfinished(items, FeatureStore(store.folder))] == ["a", "b"]


def test_what_was_mended_meanwhile_is_not_dropped(store):
    assert drop_broken(store, ["a", "gone"]) == 0
    assert FeatureStore(store.folder).done_ids() == ["a", "b", "c"]


def test_gc_removes_what_nobody_needs_and_nothing_else(store):
    (store.folder / ".tmp-1.npy").write_bytes(b"x")
    (store.folder / "_index" / ".tmp-2.json").write_bytes(b"x")
    (store.folder / "_orphan.npy").write_bytes(b"xyz")
    (store.folder / "bad-0.npy").write_bytes(b"of an item that failed")
    (store.folder / "note.txt").write_text("kept")
    before = sorted(store.folder.rglob("*"))
    code, output = run(store, "gc", "--dry-run")
    assert code == 0
    assert "would remove 2 temporary files, 2 orphans" in output
    assert [path for path in sorted(store.folder.rglob("*")) if "lock" not in path.name] == before
    garbage = collect_garbage(store)
    assert sorted(path.name for path in garbage.orphans) == ["_orphan.npy", "bad-0.npy"]
    left = {path.name for path in store.folder.iterdir()}
    assert left == {"a.npy", "b.npy", "c.npy", "note.txt", "_index"}
    assert collect_garbage(store).size_bytes == 0


def test_items_of_no_manifest_go_only_when_asked_for(store, tmp_path):
    pd.DataFrame({"id": ["b", "bad-1"]}).to_parquet(tmp_path / "manifest.parquet")
    code, output = run(store, "gc", "--manifest", str(tmp_path / "manifest.parquet"))
    assert code == 0
    assert "3 items of no manifest" in output
    assert set(FeatureStore(store.folder).rows) == {"b", "bad-1"}
    assert sorted(path.name for path in store.folder.glob("*.npy")) == ["b.npy"]


def test_a_folder_that_is_no_store_is_left_alone(tmp_path):
    np.save(tmp_path / "mine.npy", np.ones(2))
    for act in (describe_store, verify_store, collect_garbage):
        with pytest.raises(FeatureStoreError, match="is not a feature store"):
            act(FeatureStore(tmp_path))
    assert (tmp_path / "mine.npy").exists()


@pytest.mark.process
def test_gc_waits_for_no_run_but_refuses(store):
    holder = (
        "import sys; from vmnet_pipeline.features.store import FeatureStore\n"
        "with FeatureStore(sys.argv[1]).hold(): print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", holder, str(store.folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        code, output = run(store, "gc")
        process.stdin.close()
    assert code == 1
    assert f"process {process.pid}" in output


def test_stores_are_found_by_the_name_of_their_backend(store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runner = CliRunner()
    for arguments in ([], ["--store", "toy"]):
        result = runner.invoke(cli, ["features", "status", *arguments])
        assert result.output.startswith(os.path.join("data", "04_feature", "demo", "toy: "))  # noqa: PTH118
    result = runner.invoke(cli, ["features", "status", "--store", "none"])
    assert result.exit_code == 1
    assert "no feature store none" in result.output


def test_a_store_is_looked_after(remote):
    write_features(remote, make_feature("a", "s1"), make_feature("b", "s2"), make_feature("c", "s3"))
    (remote / "b.npy").write_bytes(b"damaged")
    (remote / "c.npy").unlink()
    (remote / "orphan.npy").write_bytes(b"1")
    store = FeatureStore(remote)
    assert describe_store(store).n_done == 3
    found = verify_store(store)
    assert (found.damaged, found.missing) == (("b",), ("c",))
    assert drop_broken(store, ["a", "b", "c"]) == 2
    collect_garbage(store)
    assert list(list_files(remote)) == ["a.npy"]
