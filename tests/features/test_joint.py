"""Several stores read as one."""

from __future__ import annotations

import numpy as np
import pytest

from vmnet_pipeline.errors import FeatureStoreError
from vmnet_pipeline.features.joint import join_stores
from vmnet_pipeline.features.store import FeatureChunk, FeatureResult, FeatureRow, FeatureStore
from vmnet_pipeline.types import Fingerprint


def make_store(folder, name, ids, value=1.0):
    results = tuple(FeatureResult(FeatureRow(i, "done", "s"), np.full((2, 3), value, np.float32)) for i in ids)
    store = FeatureStore(folder)
    store.write(FeatureChunk(Fingerprint(name, {"width": 3}), results))
    return FeatureStore(folder)


def test_it_has_what_every_store_has(tmp_path):
    stores = {"a": make_store(tmp_path / "a", "a", "123"), "b": make_store(tmp_path / "b", "b", "234", 5.0)}
    joint = join_stores(stores)
    assert joint.done_ids() == ["2", "3"]
    first, second = joint.load("2")
    assert (first[0, 0], second[0, 0]) == (1.0, 5.0)
    assert joint.checksum_of("1") is None
    assert joint.checksum_of("2") == f"{stores['a'].checksum_of('2')}+{stores['b'].checksum_of('2')}"
    with pytest.raises(FeatureStoreError, match=r"b.*has no feature for item '1'"):
        joint.load("1")


def test_the_identity_is_that_of_all(tmp_path):
    stores = {"a": make_store(tmp_path / "a", "a", "1"), "b": make_store(tmp_path / "b", "b", "1")}
    fingerprint = join_stores(stores).fingerprint()
    assert fingerprint.backend == "a+b"
    assert fingerprint.parts == (Fingerprint("a", {"width": 3}), Fingerprint("b", {"width": 3}))
    other = Fingerprint.join([fingerprint.parts[0], Fingerprint("b", {"width": 4})])
    assert fingerprint.describe_difference(other) == "b: width 3, not 4"
    assert fingerprint.describe_difference(fingerprint.parts[0]) == "backend 'a+b', not 'a'"
    assert join_stores({**stores, "c": FeatureStore(tmp_path / "c")}).fingerprint() is None


def test_one_store_is_itself(tmp_path):
    store = make_store(tmp_path, "a", "1")
    assert join_stores({"a": store}) is store
    assert Fingerprint.join([store.fingerprint()]) == store.fingerprint()
    assert store.fingerprint().parts == (store.fingerprint(),)


def test_a_value_that_is_not_finite_names_its_file(tmp_path):
    stores = {"a": make_store(tmp_path / "a", "a", "1"), "b": make_store(tmp_path / "b", "b", "1", np.nan)}
    with pytest.raises(FeatureStoreError, match=r"b.1\.npy has NaN or infinity"):
        join_stores(stores).load("1")
