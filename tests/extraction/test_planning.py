import os

import numpy as np
import pandas as pd
import pytest

from tiny_features import make_feature, write_features
from vmnet_pipeline.extraction.planning import find_unfinished, list_media_items, plan_extraction, summarise_items
from vmnet_pipeline.features.store import FeatureChunk, FeatureResult, FeatureRow, FeatureStore
from vmnet_pipeline.ingestion import ids as naming
from vmnet_pipeline.ingestion.discovery import list_folder
from vmnet_pipeline.types import Fingerprint, MediaItem


def write_done(folder, **contents):
    """One feature per item, filled with a number that stands for the content."""
    results = [
        FeatureResult(FeatureRow(name, "done", f"sha256:{value}", seconds=1.0), np.full((2, 3), value, np.float32))
        for name, value in contents.items()
    ]
    FeatureStore(folder).write(FeatureChunk(Fingerprint("toy"), tuple(results)))


def write_failed(folder, item_id, content, reason="undecodable_audio"):
    row = FeatureRow(item_id, "failed", f"sha256:{content}", reason=reason, error="bad")
    FeatureStore(folder).write(FeatureChunk(Fingerprint("toy"), (FeatureResult(row, None),)))


def make_items(**contents):
    return [MediaItem(name, f"/media/{name}.mp3", f"sha256:{value}") for name, value in contents.items()]


def plan(folder, items):
    return plan_extraction(items, FeatureStore(folder))


def names(items):
    return [item.id for item in items]


def value_of(folder, item_id):
    return FeatureStore(folder).load(item_id)[0, 0]


@pytest.mark.parametrize("batch_size", [2, 10_000])
def test_finished_means_this_content_and_a_whole_feature_file(tmp_path, monkeypatch, batch_size):
    monkeypatch.setattr("vmnet_pipeline.extraction.planning._BATCH_SIZE", batch_size)
    write_done(tmp_path, a=1, d=4)
    write_failed(tmp_path, "b", 2)
    write_failed(tmp_path, "c", 3, "internal_error")
    write_failed(tmp_path, "gone", 6, "missing_file")
    os.truncate(tmp_path / "d.npy", 100)
    items = make_items(e=5, d=4, gone=6, c=3, b=2, a=1)
    assert names(find_unfinished(items, FeatureStore(tmp_path))) == ["e", "d", "gone", "c"]
    assert names(find_unfinished(make_items(a=7), FeatureStore(tmp_path))) == ["a"]
    assert find_unfinished([], FeatureStore(tmp_path / "none")) == []


def test_a_renamed_file_adopts_its_feature_and_a_changed_one_is_extracted(tmp_path):
    write_done(tmp_path, old=1, changed=2)
    result = plan(tmp_path, make_items(new=1, changed=3))
    assert names(result.missing) == ["changed"]
    assert (result.n_items, result.n_adopted) == (2, 1)
    assert value_of(tmp_path, "new") == 1
    row = FeatureStore(tmp_path).rows["new"]
    assert (row.shape, row.adopted_from, row.seconds) == ((2, 3), "old", 0.0)
    assert (tmp_path / "new.npy").samefile(tmp_path / "old.npy")
    assert plan(tmp_path, make_items(new=1)).n_adopted == 0


def test_names_that_were_swapped_or_moved_on_by_one_cost_nothing(tmp_path):
    write_done(tmp_path, a=1, b=2, c=3)
    result = plan(tmp_path, make_items(a=2, b=1, c=9, d=3))
    assert names(result.missing) == ["c"]
    assert [value_of(tmp_path, name) for name in "abd"] == [2, 1, 3]
    assert names(plan(tmp_path, make_items(a=2, b=1, d=3)).missing) == []
    assert not list(tmp_path.glob(".tmp-*"))


def test_of_two_items_with_one_content_one_is_extracted(tmp_path):
    items = make_items(a=1, b=1, c=2)
    result = plan(tmp_path, items)
    assert names(result.missing) == ["a", "c"]
    assert result.n_copies == 1
    write_done(tmp_path, a=1, c=2)
    result = plan(tmp_path, items)
    assert (result.missing, result.n_adopted) == ((), 1)
    assert value_of(tmp_path, "b") == 1
    summary = summarise_items(items, FeatureStore(tmp_path))
    assert (summary["n_items"], summary["n_done"], summary["n_adopted"], summary["n_missing"]) == (3, 3, 1, 0)
    assert summary["prepare_seconds"] == 2.0


def test_contents_that_are_not_known_are_never_the_same(tmp_path):
    row = FeatureRow("old", "done", "")
    FeatureStore(tmp_path).write(FeatureChunk(Fingerprint("toy"), (FeatureResult(row, np.ones((1, 2), np.float32)),)))
    items = [MediaItem("a", "/a", ""), MediaItem("b", "/b", "")]
    assert names(plan(tmp_path, items).missing) == ["a", "b"]


def test_a_damaged_feature_is_not_adopted(tmp_path):
    write_done(tmp_path, old=1)
    content = bytearray((tmp_path / "old.npy").read_bytes())
    content[-1] ^= 1
    (tmp_path / "old.npy").write_bytes(content)
    assert names(plan(tmp_path, make_items(new=1)).missing) == ["new"]
    assert not (tmp_path / "new.npy").exists()


def test_a_failure_that_lies_in_the_content_holds_for_a_copy_too(tmp_path):
    write_failed(tmp_path, "a", 1)
    write_failed(tmp_path, "b", 2, "unreadable")
    result = plan(tmp_path, make_items(c=1, d=2))
    assert names(result.missing) == ["d"]
    assert FeatureStore(tmp_path).rows["c"].reason == "undecodable_audio"
    summary = summarise_items(make_items(a=1, b=2, c=1, d=2), FeatureStore(tmp_path))
    assert summary["failures_by_reason"] == {"undecodable_audio": 2, "unreadable": 1}
    assert (summary["n_failed"], summary["n_missing"]) == (3, 1)


def test_without_hard_links_the_feature_is_copied(tmp_path, monkeypatch):
    def refuse(self, target):
        raise PermissionError("no links here")

    monkeypatch.setattr("pathlib.Path.hardlink_to", refuse)
    write_done(tmp_path, old=1)
    plan(tmp_path, make_items(new=1))
    assert value_of(tmp_path, "new") == 1
    assert not (tmp_path / "new.npy").samefile(tmp_path / "old.npy")


@pytest.mark.parametrize("modality", ["audio", "video"])
def test_items_of_a_manifest_by_modality(modality):
    manifest = pd.DataFrame(
        {
            "id": ["007", "b", "c"],
            "status": ["ok", "failed", "ok"],
            f"{modality}_path": ["/a.wav", "/b.wav", ""],
            f"{modality}_checksum": ["sha256:1", "sha256:2", ""],
        }
    )
    assert list_media_items(manifest, modality) == [MediaItem("007", "/a.wav", "sha256:1")]


def test_swapped_names_adopt_each_others_features_and_a_lost_file_is_made_again(remote):
    write_features(remote, make_feature("a", "s1", 1.0), make_feature("b", "s2", 2.0), make_feature("c", "s3"))
    (remote / "c.npy").unlink()
    items = [MediaItem("a", "", "s2"), MediaItem("b", "", "s1"), MediaItem("c", "", "s3"), MediaItem("d", "", "s4")]
    plan = plan_extraction(items, FeatureStore(remote))
    assert [item.id for item in plan.missing] == ["c", "d"]
    assert plan.n_adopted == 2
    store = FeatureStore(remote)
    assert (store.load("a")[0, 0], store.load("b")[0, 0]) == (2.0, 1.0)


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def test_a_store_that_was_made_with_other_ids_is_adopted(tmp_path):
    touch(tmp_path / "in/a b.wav", tmp_path / "in/-x.wav")
    (tmp_path / "in/-x.wav").write_bytes(b"other")
    items = list_media_items(list_folder(tmp_path / "in", None), "audio")
    results = tuple(
        FeatureResult(FeatureRow(naming.make_safe_name(item.id), "done", item.checksum), np.full(3, k, np.float32))
        for k, item in enumerate(items)
    )
    FeatureStore(tmp_path / "out").write(FeatureChunk(Fingerprint("musicnn"), results))
    plan = plan_extraction(items, FeatureStore(tmp_path / "out"))
    assert (plan.missing, plan.n_adopted) == ((), 2)
    store = FeatureStore(tmp_path / "out")
    assert [store.load(item.id)[0] for item in items] == [0, 1]
