import numpy as np
import pytest

from vmnet_pipeline.errors import PairsError
from vmnet_pipeline.feature_store import FeatureChunk, FeatureResult, FeatureRow, FeatureStore
from vmnet_pipeline.pairs import FeatureSide, plan_pairs, read_pairs, write_pairs
from vmnet_pipeline.records import Fingerprint
from vmnet_pipeline.splitting import Split

SPLIT = Split(("b", "007"), ("c",), ("a", "gone"))
GROUPS = {"007": "g", "b": "g", "c": "h", "a": "i"}


def make_side(folder, name, width, ids=("a", "b", "c", "007")):
    results = tuple(
        FeatureResult(FeatureRow(item_id, "done", "sum"), np.full((2 + k, width), k, np.float32))
        for k, item_id in enumerate(ids)
    )
    FeatureStore(folder).write(FeatureChunk(Fingerprint(name, {"width": width}), results))
    return FeatureSide(name, FeatureStore(folder), lambda feature: feature.mean(axis=0))


@pytest.fixture
def sides(tmp_path):
    return make_side(tmp_path / "m", "musicnn", 3), make_side(tmp_path / "v", "efficientnet", 5)


def test_pairs_are_packed_in_the_order_of_the_sides(tmp_path, sides):
    plan = plan_pairs(*sides, SPLIT, GROUPS)
    assert plan.left_out == ("gone",)
    write_pairs(tmp_path / "pairs", plan)
    pairs = read_pairs(tmp_path / "pairs")
    assert pairs.ids == ("b", "007", "c", "a")
    assert isinstance(pairs.music, np.memmap)
    np.testing.assert_array_equal(pairs.music[:, 0], [1, 3, 2, 0])
    train, val, test = (pairs.side(name) for name in ("train", "val", "test"))
    assert (train.ids, val.ids, test.ids) == (("b", "007"), ("c",), ("a",))
    assert (train.groups, test.groups) == (("g", "g"), ("i",))
    assert train.video.shape == (2, 5)
    assert np.shares_memory(train.video, pairs.video)
    assert pairs.fingerprints["audio"] == Fingerprint("musicnn", {"width": 3})
    assert pairs.left_out == ("gone",)


def test_packing_again_replaces_the_folder(tmp_path, sides):
    write_pairs(tmp_path / "pairs", plan_pairs(*sides, SPLIT, GROUPS))
    write_pairs(tmp_path / "pairs", plan_pairs(*sides, Split(("a", "b"), (), ("c",)), GROUPS))
    assert read_pairs(tmp_path / "pairs").ids == ("a", "b", "c")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m", "pairs", "v"]


def test_no_features_for_a_side_says_which_extraction_to_run(tmp_path, sides):
    with pytest.raises(PairsError, match=r"None of the 1 ids of test.csv.*extract_musicnn"):
        plan_pairs(*sides, Split(("a",), (), ("gone",)), GROUPS)


def test_unequal_widths_and_nan_name_the_item(tmp_path, sides):
    music, video = sides
    np.save(tmp_path / "m" / "007.npy", np.zeros((2, 4), np.float32))
    with pytest.raises(PairsError, match=r"'007'.*pools to shape \(4,\)"):
        write_pairs(tmp_path / "pairs", plan_pairs(music, video, SPLIT, GROUPS))
    np.save(tmp_path / "m" / "007.npy", np.full((2, 3), np.nan, np.float32))
    with pytest.raises(PairsError, match=r"'007'.*NaN"):
        write_pairs(tmp_path / "pairs", plan_pairs(music, video, SPLIT, GROUPS))
    assert not (tmp_path / "pairs").exists()


def test_missing_and_damaged_pairs_are_errors(tmp_path, sides):
    with pytest.raises(PairsError, match="kedro run --pipeline train"):
        read_pairs(tmp_path / "none")
    write_pairs(tmp_path / "pairs", plan_pairs(*sides, SPLIT, GROUPS))
    np.save(tmp_path / "pairs" / "video.npy", np.zeros((2, 5), np.float32))
    with pytest.raises(PairsError, match="damaged"):
        read_pairs(tmp_path / "pairs")
