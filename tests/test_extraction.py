import threading
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest

from vmnet_pipeline.errors import ExtractionError, MediaError
from vmnet_pipeline.extraction import (
    check_failures,
    chunk_results,
    extract_items,
    list_media_items,
    select_unfinished,
    summarise_rows,
)
from vmnet_pipeline.feature_store import FeatureStore
from vmnet_pipeline.records import Fingerprint, MediaItem, PreparedItem


class NumberBackend:
    """A real, small backend: a text file with numbers; the feature is their squares."""

    name: ClassVar[str] = "numbers"
    modality: ClassVar[str] = "audio"

    def __init__(self):
        self.loads = 0
        self.prepared: list[str] = []
        self.batches: list[int] = []
        self.lock = threading.Lock()

    def fingerprint(self):
        return Fingerprint("numbers", {})

    def load(self):
        self.loads += 1

    def prepare(self, path):
        with self.lock:
            self.prepared.append(path)
        if path.startswith("bad"):
            raise MediaError("undecodable_audio", f"{path} is no sound")
        if path.startswith("bug"):
            raise ZeroDivisionError
        n = int(path.rsplit("-", 1)[1])
        return PreparedItem(np.arange(n, dtype=np.float32)[:, None] + n, n)

    def infer(self, inputs):
        self.batches.append(len(inputs))
        return np.where(inputs == 999.0, np.nan, inputs**2)

    def pool(self, feature):
        return feature.mean(axis=0)


def make_items(*paths):
    return [MediaItem(path.replace("/", "_"), path, f"sha256:{path}") for path in paths]


@pytest.mark.parametrize("batch_size", [1, 3, 64])
@pytest.mark.parametrize("n_workers", [1, 4])
def test_features_do_not_depend_on_batches_and_come_in_order(batch_size, n_workers):
    items = make_items(*(f"item{k}-{1 + k % 7}" for k in range(25)))
    results = list(extract_items(NumberBackend(), items, batch_size=batch_size, n_workers=n_workers))
    assert [result.row.id for result in results] == [item.id for item in items]
    for item, result in zip(items, results, strict=True):
        n = int(item.path.rsplit("-", 1)[1])
        np.testing.assert_array_equal(result.array, (np.arange(n, dtype=np.float32)[:, None] + n) ** 2)


def test_batches_cross_file_borders_and_never_exceed_their_size():
    backend = NumberBackend()
    list(extract_items(backend, make_items(*(f"i{k}-3" for k in range(10))), batch_size=8, n_workers=2))
    assert max(backend.batches) == 8
    assert len(backend.batches) < 10
    assert backend.loads == 1


def test_a_bad_item_is_a_row_and_never_loses_the_others(caplog):
    results = list(extract_items(NumberBackend(), make_items("a-2", "bad-1", "b-3", "bug-1", "c-999", "d-1")))
    rows = {result.row.id: result.row for result in results}
    assert {item_id: row.status for item_id, row in rows.items()} == {
        "a-2": "done", "bad-1": "failed", "b-3": "done", "bug-1": "failed", "c-999": "failed", "d-1": "done",
    }  # fmt: skip
    assert rows["bad-1"].reason == "undecodable_audio"
    assert rows["bug-1"].reason == "internal_error"
    assert rows["c-999"].reason == "not_finite"
    assert "bug-1" in caplog.text


def test_nothing_to_do_loads_no_model():
    backend = NumberBackend()
    assert list(extract_items(backend, [])) == []
    assert backend.loads == 0


def test_decoding_ahead_is_bounded():
    backend = NumberBackend()
    results = extract_items(backend, make_items(*(f"i{k}-1" for k in range(100))), batch_size=1, n_workers=2)
    next(results)
    results.close()
    assert len(backend.prepared) <= 6


def test_a_second_run_does_only_what_is_missing(tmp_path):
    items = make_items("a-1", "bad-1", "b-2", "c-3")
    store = FeatureStore(tmp_path)
    results = extract_items(NumberBackend(), items[:3])
    for chunk in chunk_results(results, NumberBackend(), max_results=1):
        store.write(chunk)
    assert [item.id for item in select_unfinished(items, FeatureStore(tmp_path))] == ["c-3"]


def test_every_result_is_in_one_chunk():
    items = make_items(*(f"i{k}-1" for k in range(10)))
    chunks = list(chunk_results(extract_items(NumberBackend(), items), NumberBackend(), max_results=4, max_wait_s=1e9))
    assert [len(chunk.results) for chunk in chunks] == [4, 4, 2]


def test_items_of_a_manifest_by_modality(tmp_path):
    sound = tmp_path / "a.wav"
    sound.write_bytes(b"x")
    manifest = pd.DataFrame(
        {
            "id": ["007", "b", "c", "d"],
            "status": ["ok", "failed", "ok", "ok"],
            "audio_path": [str(sound), "b", "", str(tmp_path / "none")],
            "audio_checksum": ["", "y", "", ""],
        }
    )
    first, second = list_media_items(manifest, "audio")
    assert (first.id, first.path) == ("007", str(sound))
    assert first.checksum.startswith("sha256:2d711642")
    assert (second.id, second.checksum) == ("d", "unreadable")


def test_too_many_failures_end_the_run_and_name_the_reasons(tmp_path):
    results = extract_items(NumberBackend(), make_items("a-1", "bad-1", "bad-2"))
    summary = summarise_rows(result.row for result in results)
    check_failures(summary, 0.7, tmp_path)
    with pytest.raises(ExtractionError, match=r"2 of 3 items failed.*2 x undecodable_audio.*50%"):
        check_failures(summary, 0.5, tmp_path)
    with pytest.raises(ExtractionError):
        check_failures(summarise_rows([]), 1.0, tmp_path)
