import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmnet_pipeline.errors import SplitError
from vmnet_pipeline.ingestion.splits import (
    SUBSETS,
    Split,
    check_split,
    doubt_groups,
    find_user_split,
    split_by_group,
    summarise_split,
)

SHARES = {"train": 0.6, "val": 0.15, "test": 0.25}


def sides_of(split):
    return {item_id: side for side in SUBSETS for item_id in getattr(split, side)}


@given(
    st.dictionaries(st.text(min_size=1, max_size=8), st.integers(0, 30), min_size=1, max_size=80), st.integers(0, 10**6)
)
@settings(deadline=None)
def test_sides_are_disjoint_whole_and_keep_groups_together(group_of, seed):
    ids, groups = list(group_of), [str(group) for group in group_of.values()]
    if len(set(groups)) < 3:
        with pytest.raises(SplitError, match=r"groups? are needed|are needed"):
            split_by_group(ids, groups, SHARES, seed)
        return
    try:
        split = split_by_group(ids, groups, SHARES, seed)
    except SplitError as error:
        assert "where one item says nothing" in str(error)
        assert len(set(groups)) < 6
        return
    side_of = sides_of(split)
    assert min(len(split.train), len(split.test)) >= 2
    assert sorted(side_of) == sorted(ids)
    assert sum(len(getattr(split, side)) for side in SUBSETS) == len(ids)
    assert all(getattr(split, side) for side in SUBSETS)
    for group in set(groups):
        assert len({side_of[item_id] for item_id in ids if str(group_of[item_id]) == group}) == 1


def test_adding_items_moves_nobody():
    ids = [f"i{k}" for k in range(300)]
    before = sides_of(split_by_group(ids[:200], ids[:200], SHARES, 1))
    after = sides_of(split_by_group(ids, ids, SHARES, 1))
    assert all(after[item_id] == side for item_id, side in before.items())


def test_shares_are_met_on_average_and_the_seed_matters():
    ids = [f"i{k}" for k in range(4000)]
    split = split_by_group(ids, ids, SHARES, 5)
    assert abs(len(split.train) / 4000 - 0.6) < 0.03
    assert abs(len(split.test) / 4000 - 0.25) < 0.03
    assert split == split_by_group(ids, ids, SHARES, 5)
    assert split.checksum != split_by_group(ids, ids, SHARES, 6).checksum


def test_a_small_collection_fills_every_side():
    for n in range(6, 30):
        ids = [f"i{k}" for k in range(n)]
        split = split_by_group(ids, ids, SHARES, 17)
        assert min(len(split.train), len(split.val), len(split.test)) >= 2, n


@pytest.mark.parametrize("n", [3, 4])
def test_so_few_items_that_nothing_can_be_measured_are_refused(n):
    ids = [f"i{k}" for k in range(n)]
    with pytest.raises(
        SplitError, match=rf"{n} usable items in {n} groups leave one for t.*6 groups are always enough"
    ):
        split_by_group(ids, ids, SHARES, 17)
    pairs = [f"i{k}" for k in range(2 * n)]
    assert len(split_by_group(pairs, [f"g{k % n}" for k in range(2 * n)], SHARES, 17).test) >= 2


def test_a_side_without_share_stays_empty():
    ids = [f"i{k}" for k in range(50)]
    split = split_by_group(ids, ids, {"train": 0.8, "val": 0.0, "test": 0.2}, 1)
    assert split.val == ()
    assert split.train and split.test


def test_a_split_of_the_users_own_is_taken_as_it_is(tmp_path):
    (tmp_path / "train.csv").write_text("id\n007\nb\n")
    (tmp_path / "test.csv").write_text("other\tid\nx\tc\n")
    split = find_user_split(tmp_path, tmp_path / "media")
    assert split == Split(("007", "b"), (), ("c",))
    assert find_user_split(None, tmp_path) == split
    assert find_user_split(None, tmp_path / "media") is None
    assert find_user_split(None, tmp_path / "media.CSV") == split
    with pytest.raises(SplitError, match=r"must have train.csv"):
        find_user_split(tmp_path / "media", tmp_path)


def test_a_split_without_a_column_id(tmp_path, caplog):
    """The first column counts, and its first line too: one that is no item is left out with a doubt."""
    (tmp_path / "train.csv").write_text("a\nb\n")
    (tmp_path / "test.csv").write_text("youtube,note\nc,x\n")
    split = find_user_split(tmp_path, tmp_path)
    assert split == Split(("a", "b"), (), ("youtube", "c"))
    assert "test.csv has no column id: its first column, 'youtube', is taken for it" in caplog.text
    with pytest.raises(SplitError, match=r"test\.csv names 1 item"):
        check_split(split, {"a": "a", "b": "b", "c": "c"})
    assert "left out: youtube" in check_split(Split(("a", "b"), (), ("youtube", "c", "d")), {k: k for k in "abcd"})[-1]


def test_faults_of_a_users_split():
    groups = {"a": "g1", "b": "g1", "c": "g2"}
    with pytest.raises(SplitError, match=r"Group 'g1' is in train.csv"):
        check_split(Split(("a",), (), ("b",)), groups)
    with pytest.raises(SplitError, match=r"'a' is in train.csv and again in test.csv"):
        check_split(Split(("a",), (), ("a",)), groups)
    with pytest.raises(SplitError, match=r"test.csv has no ids"):
        check_split(Split(("a",), (), ()), groups)
    with pytest.raises(SplitError, match=r"test.csv names 1 item\(s\) with usable media, and at least 2 are needed"):
        check_split(Split(("a", "b"), (), ("c",)), groups)
    with pytest.raises(SplitError, match=r"train.csv names 1 item\(s\) with usable media"):
        check_split(Split(("a", "xx"), (), ("c",)), groups)
    doubts = check_split(Split(("a", "b", "zz"), (), ("c", "d")), {**groups, "d": "g2"})
    assert len(doubts) == 2
    assert "zz" in doubts[1]


def test_summary_counts_items_and_groups():
    summary = summarise_split(Split(("a", "b"), (), ("c",)), {"a": "g", "b": "g", "c": "h"})
    assert summary["sizes"] == {"train": 2, "val": 0, "test": 1}
    assert summary["n_groups"] == {"train": 1, "val": 0, "test": 1}


def test_a_collection_without_any_group_is_doubted():
    groups = {f"i{k}": f"i{k}" for k in range(10)}
    assert "media.csv" in doubt_groups(groups)[0]
    assert doubt_groups({**groups, "i11": "i0"}) == []
    assert doubt_groups({"a": "a", "b": "b"}) == []


def test_a_split_of_ones_own_may_lie_beside_the_media(remote):
    (remote / "train.csv").write_text("id\n007\n")
    (remote / "test.csv").write_text("id\na\n")
    assert find_user_split(None, str(remote)) == Split(("007",), (), ("a",))
