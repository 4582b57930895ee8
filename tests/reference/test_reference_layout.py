"""Feature files in the layout of the reference: found, recognised, pooled, checked in one report."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from reference_data import make_reference_data
from vmnet_pipeline.errors import PairsError, ParameterError
from vmnet_pipeline.pairs.packing import read_pairs, write_pairs
from vmnet_pipeline.reference.layout import locate_subsets, make_layout, recognise_variant
from vmnet_pipeline.reference.planning import peek_shapes, plan_reference_pairs, pool_patches, pool_vectors


def plan(folder, variant=None, **settings):
    layout = make_layout(locate_subsets(folder), variant)
    return plan_reference_pairs(layout, **{"val_share": 0.2, "seed": 17, **settings})


def pack(folder, target, variant=None, **settings):
    write_pairs(target, plan(folder, variant, **settings))
    return read_pairs(target)


@pytest.fixture
def data(tmp_path):
    return make_reference_data(tmp_path / "data")


KINDS = {
    "raw_vggish": ("vmnet_vggish", (62, 512)),
    "pooled_vggish": ("vmnet_vggish", (62, 512)),
    "musicnn": ("vmnet_musicnn", (24,)),
    "vector": ("vmnet_musicnn", (24,)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_form_is_recognised_and_pooled(tmp_path, kind):
    folder = make_reference_data(tmp_path / "data", kind=kind, n_train=3, n_test=2)
    variant, shape = KINDS[kind]
    sides = locate_subsets(folder)
    assert recognise_variant(sides) == variant
    assert peek_shapes(make_layout(sides)) == (shape, (30,))
    pairs = pack(folder, tmp_path / "pairs")
    assert pairs.ids == ("000", "001", "002", "003", "004")
    assert pairs.sizes == {"train": 3, "val": 0, "test": 2}
    assert pairs.music.shape == (5, *shape)
    assert pairs.video.shape == (5, 30)
    raw = np.load(folder / "test" / "audio" / "004.npy").astype(np.float64)
    expected = {4: lambda: raw.mean(axis=(2, 3)), 1: lambda: raw}.get(
        raw.ndim, lambda: raw if variant == "vmnet_vggish" else raw.mean(axis=0)
    )()
    np.testing.assert_allclose(pairs.music[4], expected, rtol=1e-6)
    np.testing.assert_allclose(pairs.video[0], np.load(folder / "train" / "video" / "000.npy").mean(0), rtol=1e-6)
    assert pairs.fingerprints == {}


def test_the_variant_can_be_said_where_the_shape_misleads(tmp_path):
    folder = make_reference_data(tmp_path / "data", kind="pooled_vggish", n_train=3, n_test=2)
    assert pack(folder, tmp_path / "a", "vmnet_musicnn").music.shape == (5, 512)
    for path in folder.rglob("audio/*.npy"):
        np.save(path, np.load(path)[:31, :128])
    assert recognise_variant(locate_subsets(folder)) == "vmnet_musicnn"
    assert pack(folder, tmp_path / "b", "vmnet_vggish").music.shape == (5, 31, 128)
    with pytest.raises(ParameterError, match="unknown variant 'vmnet_clap'"):
        make_layout({}, "vmnet_clap")


def test_a_512_wide_feature_of_varying_length_is_not_taken_for_vggish(data):
    for k, path in enumerate(sorted(data.rglob("audio/*.npy"))):
        np.save(path, np.zeros((62 if k == 0 else 40 + k, 512), np.float32))
    assert recognise_variant(locate_subsets(data)) == "vmnet_musicnn"


def test_patches_are_cut_or_repeated_to_the_commonest_number(tmp_path, caplog):
    folder = make_reference_data(tmp_path / "data", kind="raw_vggish", n_train=4, n_test=2)
    short, long = folder / "train" / "audio" / "001.npy", folder / "test" / "audio" / "005.npy"
    np.save(short, np.load(short)[:40])
    np.save(long, np.concatenate([np.load(long)] * 2)[:70])
    pairs = pack(folder, tmp_path / "pairs", holds_out_val=False)
    assert recognise_variant(locate_subsets(folder)) == "vmnet_vggish"
    assert "2 of 6 music features do not have 62 patches" in caplog.text
    assert pairs.music.shape == (6, 62, 512)
    np.testing.assert_array_equal(pairs.music[1, 40:], pairs.music[1, :22])


@pytest.mark.parametrize(("shape", "pool"), [((2, 3, 4), "p"), ((5,), "p"), ((2, 3, 4), "v"), ((2, 3, 4, 5), "v")])
def test_odd_numbers_of_axes_are_refused(shape, pool):
    with pytest.raises(PairsError, match="shape"):
        pool_patches(np.zeros(shape), 3) if pool == "p" else pool_vectors(np.zeros(shape), "music")


# --- csv files and sides


def test_tabs_bom_and_leading_zeros(tmp_path):
    folder = make_reference_data(tmp_path / "data", separator="\t", n_val=4)
    table = folder / "train.csv"
    table.write_bytes(b"\xef\xbb\xbf" + table.read_bytes().replace(b"\n", b"\r\n"))
    pairs = pack(folder, tmp_path / "pairs")
    assert pairs.ids[0] == "000"
    assert pairs.sizes == {"train": 24, "val": 4, "test": 10}


def test_val_is_held_out_by_group_and_seed(data):
    ids = [f"{k:03d}" for k in range(24)]
    (data / "train.csv").write_text("id,group\n" + "".join(f"{i},{int(i) // 3}\n" for i in ids))
    plans = [plan(data, seed=seed) for seed in (1, 1, 2)]
    first, again, other = (item.split for item in plans)
    assert first == again
    assert first.val != other.val
    assert 3 <= len(first.val) <= 12
    assert sorted(first.train + first.val) == ids
    groups = plans[0].groups
    assert not {groups[i] for i in first.train} & {groups[i] for i in first.val}
    assert plan(data, holds_out_val=False).split.val == ()
    assert plan(data, holds_out_val=False).split.train == tuple(ids)


def test_val_in_a_folder_of_its_own(data, tmp_path):
    (data / "train" / "audio" / "003.npy").rename(data / "moved.npy")
    for modality in ("audio", "video"):
        (data / "val" / modality).mkdir(parents=True)
    (data / "moved.npy").rename(data / "val" / "audio" / "003.npy")
    (data / "train" / "video" / "003.npy").rename(data / "val" / "video" / "003.npy")
    (data / "val.csv").write_text("id\n003\n")
    (data / "train.csv").write_text((data / "train.csv").read_text().replace("003\n", ""))
    assert pack(data, tmp_path / "pairs").subset("val").ids == ("003",)


def test_places_one_by_one_go_before_those_of_the_folder(data, tmp_path):
    other = make_reference_data(tmp_path / "other", n_train=5, n_test=3)
    sides = locate_subsets(data, test_data_dir=other / "test", test_csv_path=other / "test.csv")
    assert sides["test"].data_dir == other / "test"
    assert sides["train"].data_dir == data / "train"
    alone = locate_subsets(test_data_dir=other / "test", test_csv_path=other / "test.csv")
    assert list(alone) == ["test"]
    with pytest.raises(ParameterError, match="test_csv_path is missing"):
        locate_subsets(test_data_dir=other / "test")
    with pytest.raises(PairsError, match="There is no folder"):
        locate_subsets(tmp_path / "none")
    with pytest.raises(PairsError, match="neither"):
        locate_subsets(make_empty(tmp_path))


def make_empty(tmp_path):
    (tmp_path / "empty").mkdir()
    return tmp_path / "empty"


def test_a_test_set_alone_is_enough_to_evaluate(data, tmp_path):
    import shutil

    shutil.rmtree(data / "train")
    (data / "train.csv").unlink()
    assert pack(data, tmp_path / "pairs").sizes == {"train": 0, "val": 0, "test": 10}


# --- one report


def test_one_report_lists_every_problem_of_every_kind(data, tmp_path):
    audio, video = data / "train" / "audio", data / "train" / "video"
    (audio / "000.npy").unlink()
    np.save(audio / "001.npy", np.zeros((18, 99), np.float32))
    np.save(audio / "002.npy", np.full((18, 24), np.nan, np.float32))
    (audio / "003.npy").write_bytes(b"garbage")
    np.save(audio / "004.npy", np.array(["text"] * 3))
    np.save(audio / "005.npy", np.zeros((0, 24), np.float32))
    np.save(audio / "006.npy", np.zeros((2, 3, 4, 5), np.float32))
    (video / "007.npy").unlink()
    infinite = np.load(data / "test" / "video" / "024.npy")
    infinite[1, 1] = -np.inf
    np.save(data / "test" / "video" / "024.npy", infinite)
    np.save(video / "008.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with (data / "train.csv").open("a") as table:
        table.write("001\n030\n../x\nunknown\n")
    with pytest.raises(PairsError) as caught:
        pack(data, tmp_path / "pairs")
    lines = str(caught.value).splitlines()
    expected = [
        ("train.csv", "'001'", "repeated"), ("test.csv", "'030'", "train, too"), ("'../x'", "file name"),
        ("000.npy", "missing"), ("001.npy", "(99,)", "(24,)"), ("002.npy", "NaN"), ("003.npy", "not a readable"),
        ("004.npy", "not numbers"), ("005.npy", "empty"), ("006.npy", "neither", "vmnet_vggish"),
        ("video/007.npy", "missing"), ("test/video/024.npy", "infinity"), ("video/008.npy", "not a readable"),
        ("audio/unknown.npy", "missing"), ("video/unknown.npy", "missing"), ("audio/030.npy", "missing"),
        ("video/030.npy", "missing"),
    ]  # fmt: skip
    for words in expected:
        assert any(all(word in line for word in words) for line in lines), words
    assert lines[0].startswith(f"{len(expected)} problems")
    assert len(lines) == len(expected) + 1
    assert not (tmp_path / "pairs").exists()


def test_a_long_report_is_whole_in_a_file(data, tmp_path):
    (data / "train.csv").write_text("id\n" + "".join(f"no{k}\n" for k in range(80)))
    with pytest.raises(PairsError, match=r"160 problems.*(\n.*)*and 60 more.*pairs_problems.txt"):
        pack(data, tmp_path / "pairs")
    assert len((tmp_path / "pairs_problems.txt").read_text().splitlines()) == 160
    pack(make_reference_data(tmp_path / "good"), tmp_path / "pairs")
    assert not (tmp_path / "pairs_problems.txt").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("id\n", "has no ids"),
        ("000\n001\n", "its first line, '000', is an item, not a header"),
        ("id,group\n000,g\n001,h\n", "group 'g' of item '024' is in train, too"),
        ("id,group\nZoe\u0301,x\nZoé,y\n", "the id 'Zoé' is repeated"),
        ("id,group\n000,Zoe\u0301\n001,h\n", "group 'Zoé' of item '026' is in train, too"),
        (None, "cannot be read"),
    ],
)
def test_csv_files_that_contradict_themselves(data, tmp_path, content, message):
    (data / "test.csv").write_text("id,group\n024,g\n025,i\n026,Zoé\n", encoding="utf-8")
    if content is None:
        (data / "train.csv").unlink()
    else:
        (data / "train.csv").write_text(content, encoding="utf-8")
    with pytest.raises(PairsError, match=message):
        pack(data, tmp_path / "pairs")


def test_the_first_column_has_the_ids_where_none_is_called_so(data, tmp_path, caplog):
    (data / "train.csv").write_text("youtube\tnote\n" + "".join(f"{k:03d}\tx\n" for k in range(24)))
    pairs = pack(data, tmp_path / "pairs")
    assert len(pairs.subset("train").ids) + len(pairs.subset("val").ids) == 24
    assert "train.csv has no column id: its first column, 'youtube', is taken for it" in caplog.text
    (data / "train.csv").write_text("000\n" + "".join(f"{k:03d}\n" for k in range(1, 24)))
    pairs = pack(data, tmp_path / "pairs", holds_out_val=False, allows_repeats=True)  # the original drops the first one
    assert pairs.subset("train").ids[0] == "001"
    assert "its first line, '000', is an item, not a header" in caplog.text


def test_the_reference_keeps_ids_that_stand_twice_or_on_two_sides(data, tmp_path, caplog):
    (data / "train.csv").write_text("id\n000\n001\n000\n002\n")
    for modality in ("audio", "video"):
        np.save(data / "test" / modality / "001.npy", np.load(data / "test" / modality / "024.npy"))
    (data / "test.csv").write_text("id\n001\n024\n")
    with pytest.raises(PairsError, match=r"'000' is repeated(.*\n)*.*'001' is in the csv file of train, too"):
        pack(data, tmp_path / "pairs", holds_out_val=False)
    pairs = pack(data, tmp_path / "pairs", holds_out_val=False, allows_repeats=True)
    assert pairs.ids == ("000", "001", "000", "002", "001", "024")
    assert pairs.sizes == {"train": 4, "val": 0, "test": 2}
    np.testing.assert_array_equal(pairs.music[0], pairs.music[2])
    np.testing.assert_array_equal(pairs.video[4], pairs.video[5])  # of the test folder, not of that of training
    assert "2 id(s) or group(s) are repeated or in two subsets and are kept" in caplog.text


def test_an_evaluation_reads_the_test_side_alone(data, tmp_path, caplog):
    whole = pack(data, tmp_path / "whole")
    layout = replace(make_layout(locate_subsets(data)), test_only=True)

    def pack_test(target):
        write_pairs(target, plan_reference_pairs(layout, val_share=0.2, seed=17))
        return read_pairs(target)

    inode = (tmp_path / "whole/music.npy").stat().st_ino
    assert pack_test(tmp_path / "whole").ids == whole.ids  # what training has packed does as well
    assert (tmp_path / "whole/music.npy").stat().st_ino == inode
    (data / "train" / "audio" / "003.npy").write_bytes(b"garbage")
    with (data / "train.csv").open("a") as table:
        table.write("../x\n")
    alone = pack_test(tmp_path / "alone")
    assert alone.sizes == {"train": 0, "val": 0, "test": 10}
    np.testing.assert_array_equal(alone.subset("test").music, whole.subset("test").music)
    (data / "test" / "audio" / "024.npy").write_bytes(b"garbage")
    with pytest.raises(PairsError, match=r"024\.npy is not a readable"):
        pack_test(tmp_path / "other")


def test_ids_of_old_collections_need_not_be_safe_names(data, tmp_path):
    for modality in ("audio", "video"):
        folder = data / "test" / modality
        (folder / "024.npy").rename(folder / "-aB_1 é.npy")
    (data / "test.csv").write_text("id\n-aB_1 é\n025\n", encoding="utf-8")
    assert pack(data, tmp_path / "pairs").subset("test").ids == ("-aB_1 é", "025")


def test_files_are_read_again_only_when_something_changed(data, tmp_path):
    target = tmp_path / "pairs"
    pack(data, target)
    before = (target / "music.npy").stat().st_ino
    pack(data, target)
    assert (target / "music.npy").stat().st_ino == before
    pack(data, target, holds_out_val=False)
    assert (target / "music.npy").stat().st_ino != before
    path = data / "train" / "audio" / "000.npy"
    np.save(path, np.full((19, 24), 7, np.float32))
    assert (pack(data, target, holds_out_val=False).music[0] == 7).all()


# --- sequences


@pytest.mark.parametrize(("kind", "width"), [("raw_vggish", 512), ("pooled_vggish", 512), ("musicnn", 24)])
def test_features_keep_their_time_where_sequences_are_wanted(tmp_path, kind, width):
    folder = make_reference_data(tmp_path / "data", kind=kind, n_train=3, n_test=2)
    wanted = {"music_steps": 19, "video_steps": 6}
    assert peek_shapes(make_layout(locate_subsets(folder)), **wanted) == ((19, width), (6, 30))
    pairs = pack(folder, tmp_path / "pairs", **wanted)
    assert pairs.music.shape == (5, 19, width)
    assert pairs.video.lengths.tolist() == [5, 6, 6, 6, 5]  # of 5, 6, 7, 8, 5
    raw = np.load(folder / "train" / "video" / "000.npy")
    np.testing.assert_array_equal(pairs.video.take(np.array([0]))[0][0], raw)


def test_another_form_is_packed_anew_and_the_same_one_is_not(data, tmp_path):
    target = tmp_path / "pairs"
    seen = []
    for music_steps in (None, None, 9, 9, 10, None):
        pairs = pack(data, target, music_steps=music_steps)
        assert pairs.music.shape[1:] == ((24,) if music_steps is None else (music_steps, 24))
        assert pairs.video.shape[1:] == (30,)
        seen.append((target / "music.npy").stat().st_ino)
    assert [a == b for a, b in itertools.pairwise(seen)] == [True, False, True, False, False]


def test_vectors_have_no_time_to_keep(tmp_path):
    folder = make_reference_data(tmp_path / "data", kind="vector", n_train=3, n_test=2)
    with pytest.raises(PairsError, match=r"000\.npy: feature of shape \(24,\) is neither \(T, D\)"):
        pack(folder, tmp_path / "pairs", music_steps=9)


# --- equal arrays


def copy_feature(folder, modality, source, target):
    (from_path,) = folder.glob(f"*/{modality}/{source}.npy")
    (to_path,) = folder.glob(f"*/{modality}/{target}.npy")
    np.save(to_path, np.load(from_path).astype(np.float64))  # other bytes, equal values


@pytest.mark.parametrize("modality", ["audio", "video"])
def test_items_with_equal_arrays_are_held_out_together(data, modality, caplog):
    caplog.set_level("INFO")
    before = plan(data)
    validation, training = before.split.val[0], before.split.train[:2]
    for source, target in itertools.pairwise((validation, *training)):
        copy_feature(data, modality, source, target)
    after = plan(data)
    tied = {validation, *training}
    assert {after.groups[item_id] for item_id in tied} == {min(tied)}
    assert not (tied & {*after.split.val} and tied & {*after.split.train})
    assert not {after.groups[key] for key in after.split.train} & {after.groups[key] for key in after.split.val}
    assert {key: group for key, group in after.groups.items() if key not in tied} == {
        key: group for key, group in before.groups.items() if key not in tied
    }
    counts = {"audio": "3 item(s) have the audio and 0", "video": "0 item(s) have the audio and 3"}
    assert caplog.text.count(f"{counts[modality]} the video of another one; such items are one group: 32 groups") == 1


@pytest.mark.parametrize("modality", ["audio", "video"])
def test_training_items_with_the_arrays_of_a_test_item_are_left_out(data, tmp_path, modality, caplog):
    copy_feature(data, modality, "030", "004")
    pairs = pack(data, tmp_path / "pairs")
    assert "004" not in pairs.ids
    assert pairs.ids[-10:] == tuple(f"{k:03d}" for k in range(24, 34))
    assert "1 item(s) of training or validation are left out" in caplog.text
    assert plan(data, allows_repeats=True, holds_out_val=False).split.train == tuple(f"{k:03d}" for k in range(24))


def test_arrays_that_only_begin_alike_or_have_another_shape_are_not_equal(data):
    begin = np.zeros(2048, np.float32)
    np.save(data / "train" / "video" / "000.npy", np.concatenate([begin, [1.0]]))
    np.save(data / "train" / "video" / "001.npy", np.concatenate([begin, [2.0]]))
    np.save(data / "train" / "audio" / "002.npy", np.zeros((2, 6)))
    np.save(data / "train" / "audio" / "003.npy", np.zeros((3, 4)))
    (data / "train" / "audio" / "004.npy").write_bytes(b"not an array")
    assert all(group == key for key, group in plan(data).groups.items())


def test_equal_arrays_tie_given_groups_and_the_first_of_them_names_both(data):
    names = {"000": "song b", "001": "song a", "002": ""}
    rows = [f"{k:03d},{names.get(f'{k:03d}', '')}" for k in range(24)]
    (data / "train.csv").write_text("id,group\n" + "\n".join(rows) + "\n")
    copy_feature(data, "audio", "000", "001")
    copy_feature(data, "video", "001", "002")
    assert [plan(data).groups[key] for key in ("000", "001", "002", "003")] == ["song a", "song a", "song a", "003"]
