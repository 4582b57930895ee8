import json
from dataclasses import replace

import numpy as np
import pytest

from vmnet_pipeline.errors import PairsError
from vmnet_pipeline.features.store import FeatureChunk, FeatureResult, FeatureRow, FeatureStore
from vmnet_pipeline.ingestion.splits import Split
from vmnet_pipeline.pairs.packing import FeatureSide, plan_pairs, read_pairs, write_pairs
from vmnet_pipeline.storage.checksummed import add_checksum
from vmnet_pipeline.types import Fingerprint

SPLIT = Split(("b", "007"), ("c",), ("a", "gone"))
GROUPS = {"007": "g", "b": "g", "c": "h", "a": "i"}


def make_side(folder, name, width, ids=("a", "b", "c", "007")):
    results = tuple(
        FeatureResult(FeatureRow(item_id, "done", "sum"), np.full((2 + k, width), k, np.float32))
        for k, item_id in enumerate(ids)
    )
    FeatureStore(folder).write(FeatureChunk(Fingerprint(name, {"width": width}), results))
    return FeatureSide(name, FeatureStore(folder), lambda feature: feature.mean(axis=0))


def put(side, item_id, feature):
    """Another feature for an item."""
    result = FeatureResult(FeatureRow(item_id, "done", "sum"), feature)
    side.store.write(FeatureChunk(side.store.fingerprint(), (result,)))


@pytest.fixture
def sides(tmp_path):
    return make_side(tmp_path / "m", "musicnn", 3), make_side(tmp_path / "v", "efficientnet", 5)


def test_pairs_are_packed_in_the_order_of_the_sides(tmp_path, sides):
    plan = plan_pairs(*sides, SPLIT, GROUPS)
    assert plan.left_out == {"gone": ("musicnn", "efficientnet")}
    write_pairs(tmp_path / "pairs", plan)
    pairs = read_pairs(tmp_path / "pairs")
    assert pairs.ids == ("b", "007", "c", "a")
    assert isinstance(pairs.music, np.memmap)
    np.testing.assert_array_equal(pairs.music[:, 0], [1, 3, 2, 0])
    train, val, test = (pairs.subset(name) for name in ("train", "val", "test"))
    assert (train.ids, val.ids, test.ids) == (("b", "007"), ("c",), ("a",))
    assert (train.groups, test.groups) == (("g", "g"), ("i",))
    assert train.video.shape == (2, 5)
    assert np.shares_memory(train.video, pairs.video)
    assert pairs.fingerprints["audio"] == Fingerprint("musicnn", {"width": 3})
    assert pairs.left_out == {"gone": ("musicnn", "efficientnet")}


def test_pairs_packed_before_backends_were_named_are_read(tmp_path, sides):
    write_pairs(tmp_path / "pairs", plan_pairs(*sides, SPLIT, GROUPS))
    place = tmp_path / "pairs" / "pairs.json"
    content = json.loads(place.read_text())
    del content["parts"], content["checksum"]
    place.write_text(add_checksum({**content, "left_out": ["gone"]}))
    pairs = read_pairs(tmp_path / "pairs", verify=True)
    assert pairs.left_out == {"gone": ()}
    assert pairs.subset("train").parts == {}


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
    put(music, "007", np.zeros((2, 4), np.float32))
    with pytest.raises(PairsError, match=r"'007'.*pools to shape \(4,\)"):
        write_pairs(tmp_path / "pairs", plan_pairs(music, video, SPLIT, GROUPS))
    put(music, "007", np.full((2, 3), np.nan, np.float32))
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


def test_a_damaged_feature_is_named_and_not_packed(tmp_path, sides):
    path = tmp_path / "m" / "007.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(PairsError, match=r"007\.npy cannot be read \(its bytes do not match the checksum"):
        write_pairs(tmp_path / "pairs", plan_pairs(*sides, SPLIT, GROUPS))


@pytest.mark.parametrize("name", ["music.npy", "music_offsets.npy", "video.npy", "pairs.json"])
def test_any_flipped_byte_of_packed_pairs_is_named(tmp_path, sides, name):
    music, video = sides
    write_pairs(tmp_path / "pairs", plan_pairs(replace(music, max_steps=4), video, SPLIT, GROUPS))
    path = tmp_path / "pairs" / name
    content = bytearray(path.read_bytes())
    content[content.index(b"007") if name == "pairs.json" else -1] ^= 1
    path.write_bytes(content)
    with pytest.raises(PairsError, match=r"pairs has no packed pairs that can be read .*checksum"):
        read_pairs(tmp_path / "pairs", verify=True)


def test_a_side_is_packed_as_sequences(tmp_path, sides):
    music, video = sides
    write_pairs(tmp_path / "pairs", plan_pairs(replace(music, max_steps=4), video, SPLIT, GROUPS))
    pairs = read_pairs(tmp_path / "pairs")
    assert isinstance(pairs.music.values, np.memmap)
    assert pairs.music.lengths.tolist() == [3, 4, 4, 2]  # 007 had five steps
    assert pairs.music.shape == (4, 4, 3)
    assert pairs.video.shape == (4, 5)
    for name, expected in (("train", [1, 3]), ("val", [2]), ("test", [0])):
        values, mask = pairs.subset(name).music.take(np.arange(len(expected)))
        np.testing.assert_array_equal(values[:, 0, 0], expected)
        assert mask.any(axis=1).all()
    write_pairs(tmp_path / "pairs", plan_pairs(music, video, SPLIT, GROUPS))
    assert read_pairs(tmp_path / "pairs").music.shape == (4, 3)
    assert sorted(path.name for path in (tmp_path / "pairs").iterdir()) == ["music.npy", "pairs.json", "video.npy"]


def test_bad_sequences_name_the_item(tmp_path, sides):
    music, video = (replace(side, max_steps=4) for side in sides)
    put(music, "007", np.zeros((2, 4), np.float32))
    put(music, "c", np.zeros(3, np.float32))
    put(video, "a", np.full((2, 5), np.nan, np.float32))
    with pytest.raises(PairsError) as caught:
        write_pairs(tmp_path / "pairs", plan_pairs(music, video, SPLIT, GROUPS))
    for words in (("'007'", "(4,)", "(3,)"), ("c.npy", "neither (T, D)"), ("'a'", "NaN")):
        assert any(all(word in line for word in words) for line in str(caught.value).splitlines()), words


def test_damaged_sequences_are_errors(tmp_path, sides):
    music, video = sides
    write_pairs(tmp_path / "pairs", plan_pairs(replace(music, max_steps=4), video, SPLIT, GROUPS))
    (tmp_path / "pairs" / "music_offsets.npy").unlink()
    with pytest.raises(PairsError, match="no packed pairs that can be read"):
        read_pairs(tmp_path / "pairs")
