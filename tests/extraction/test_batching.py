import threading
from typing import ClassVar

import numpy as np
import pytest

from vmnet_pipeline.errors import ExtractionError, MediaError
from vmnet_pipeline.extraction.batching import extract_items
from vmnet_pipeline.extraction.planning import check_failures, summarise_items
from vmnet_pipeline.features.store import FeatureStore
from vmnet_pipeline.types import Fingerprint, MediaItem, PreparedItem


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
        warnings = ("only a part could be read", "its clock jumps") if path.startswith("part") else ()
        return PreparedItem(np.arange(n, dtype=np.float32)[:, None] + n, n, warnings)

    def infer(self, inputs):
        self.batches.append(len(inputs))
        return np.where(inputs == 999.0, np.nan, inputs**2)

    def finish(self, feature):
        return feature

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


def test_warnings_of_the_front_end_are_in_the_row_the_log_and_the_summary(tmp_path, caplog):
    items = make_items("part-2", "whole-2")
    store = FeatureStore(tmp_path / "store")
    list(store.add_all(extract_items(NumberBackend(), items, n_workers=1)))
    rows = FeatureStore(tmp_path / "store").rows
    assert rows["part-2"].status == "done"
    assert rows["part-2"].warning == "only a part could be read; its clock jumps"
    assert rows["whole-2"].warning == ""
    assert [record.getMessage() for record in caplog.records if "part" in record.getMessage()] == [
        "Item 'part-2': only a part could be read; its clock jumps"
    ]
    summary = summarise_items(items, store)
    assert summary["n_warned"] == 1
    assert summary["warned_items"] == [{"id": "part-2", "warning": "only a part could be read; its clock jumps"}]


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


class StrictBackend(NumberBackend):
    """As the real ones: refuses a whole call for one value that is not finite."""

    def infer(self, inputs):
        outputs = super().infer(inputs)
        if not np.isfinite(outputs).all():
            raise MediaError("not_finite", "the network's output has NaN")
        return outputs


def test_one_item_that_is_not_finite_spoils_no_other():
    items = make_items("a-2", "c-999", "b-3", "d-1")
    results = {result.row.id: result for result in extract_items(StrictBackend(), items, batch_size=4096)}
    assert results["c-999"].row.reason == "not_finite"
    assert [results[name].row.status for name in ("a-2", "b-3", "d-1")] == ["done"] * 3
    np.testing.assert_array_equal(results["b-3"].array, (np.arange(3, dtype=np.float32)[:, None] + 3) ** 2)


class TurnBackend(NumberBackend):
    """Decoding and inference each wait for the other to be under way."""

    def __init__(self):
        super().__init__()
        self.third_began = threading.Event()

    def prepare(self, path):
        if path.startswith("third"):
            self.third_began.set()
        return super().prepare(path)

    def infer(self, inputs):
        assert self.third_began.wait(30), "no file was decoded while the network was running"
        return super().infer(inputs)


def test_next_items_are_decoded_while_the_network_runs():
    items = make_items("first-4", "second-4", "third-4", "fourth-4")
    results = list(extract_items(TurnBackend(), items, batch_size=4, n_workers=2))
    assert [result.row.status for result in results] == ["done"] * 4


def test_decoding_threads_do_not_start_threads_of_their_own():
    from threadpoolctl import threadpool_info

    class Watcher(NumberBackend):
        def prepare(self, path):
            # That of faiss, which another test may have loaded, counts threads for each calling thread and idles here.
            pools = [
                pool for pool in threadpool_info() if pool["user_api"] == "blas" and "faiss" not in pool["filepath"]
            ]
            self.seen = getattr(self, "seen", []) + [pool["num_threads"] for pool in pools]
            return super().prepare(path)

    backend = Watcher()
    list(extract_items(backend, make_items("a-1", "b-1")))
    assert backend.seen
    assert set(backend.seen) == {1}


@pytest.mark.parametrize(
    ("params", "shape", "dtype"),
    [
        ({}, (5, 512, 6, 4), "float32"),
        ({"dtype": "float16"}, (5, 512, 6, 4), "float16"),
        ({"pooled": True}, (62, 512), "float32"),
        ({"pooled": True, "dtype": "float16"}, (62, 512), "float16"),
    ],
)
def test_stored_form_is_chosen_and_pools_to_the_same(tmp_path, params, shape, dtype):
    from vmnet_pipeline.backends.vggish import VggishBackend
    from vmnet_pipeline.demo import make_clip

    sound = make_clip(tmp_path / "a.wav", duration_s=5.0, with_video=False)
    common = {"weights": "random", "short_audio": "mask", "precision": "f32"}
    backend, usual = (VggishBackend({**common, **extra}, weights_dir=tmp_path) for extra in (params, {}))
    store = FeatureStore(tmp_path / "store")
    store.set_fingerprint(backend.fingerprint())
    assert len(list(store.add_all(extract_items(backend, [MediaItem("a", str(sound), "x")])))) == 1
    stored = np.load(tmp_path / "store" / "a.npy")
    assert (stored.shape, stored.dtype.name) == (shape, dtype)
    assert (store.fingerprint() == usual.fingerprint()) is (params == {})
    pooled = backend.pool(store.load("a"))
    assert (pooled.shape, pooled.dtype) == ((62, 512), np.float32)
    usual.load()
    expected = usual.pool(usual.infer(usual.prepare(str(sound)).inputs))
    np.testing.assert_allclose(pooled, expected, atol=2e-3 * expected.max() if "dtype" in params else 1e-6)


def test_what_float16_cannot_hold_is_a_row_and_not_infinity():
    class Half(NumberBackend):
        def finish(self, feature):
            with np.errstate(over="ignore"):
                return feature.astype(np.float16)

    (result,) = extract_items(Half(), make_items("a-300"))
    assert (result.row.status, result.row.reason) == ("failed", "not_finite")
    assert "float16" in result.row.error


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


def test_too_many_failures_end_the_run_and_name_the_reasons(tmp_path):
    reasons = {"undecodable_audio": 2}
    summary = {"n_items": 3, "n_done": 1, "n_failed": 2, "n_not_tried": 0, "failures_by_reason": reasons}
    check_failures(summary, 0.7, tmp_path)
    with pytest.raises(ExtractionError, match=r"2 of 3 items failed.*2 x undecodable_audio.*50%"):
        check_failures(summary, 0.5, tmp_path)
    with pytest.raises(ExtractionError, match="no items"):
        check_failures({**summary, "n_items": 0, "n_done": 0, "n_failed": 0, "failures_by_reason": {}}, 1.0, tmp_path)
    with pytest.raises(ExtractionError, match=r"4 items have not been extracted.*array job"):
        check_failures({**summary, "n_not_tried": 4}, 1.0, tmp_path)
