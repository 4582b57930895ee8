"""The benchmark on real pairs: what it reads, how it splits, that it goes on after a kill, what it says."""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tiny_pairs import draw_pairs
from vmnet_pipeline.errors import PairsError
from vmnet_pipeline.params import TrainParams

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def real():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield importlib.import_module("real")


@pytest.fixture(scope="module")
def pairs(real):
    return sys.modules["real_pairs"]


def write(path: Path, array: np.ndarray) -> None:
    import torch

    if path.suffix == ".npz":
        np.savez(path, features=array)
    elif path.suffix == ".pt":
        torch.save({"features": torch.from_numpy(array)}, path)
    elif path.suffix == ".h5":
        h5py = pytest.importorskip("h5py")
        with h5py.File(path, "w") as file:
            file["features"] = array
    else:
        np.save(path, array)


def write_pairs(folder: Path, n: int = 120) -> Path:
    drawn = draw_pairs(n, 3)
    folder.mkdir()
    np.save(folder / "audio.npy", drawn.music.astype(np.float16))
    np.save(folder / "video.npy", drawn.video)
    return folder


# --- reading


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".h5", ".pt"])
def test_every_kind_of_file_is_read_and_time_is_averaged(pairs, tmp_path, suffix):
    audio = np.arange(24, dtype=np.float16).reshape(4, 3, 2)
    write(tmp_path / f"audio{suffix}", audio)
    write(tmp_path / "video.npy", np.eye(4))
    (tmp_path / "groups.txt").write_text("a\na\n\nb\n")
    loaded = pairs.load_arrays(tmp_path)
    np.testing.assert_array_equal(loaded.music, audio.astype(float).mean(axis=1))
    np.testing.assert_array_equal(loaded.video, np.eye(4))
    assert loaded.groups == ("a", "a", "", "b")


def test_h5_without_h5py_is_one_sentence(pairs, tmp_path, monkeypatch):
    (tmp_path / "audio.h5").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(PairsError, match=r"audio\.h5 needs h5py: run `pip install h5py`"):
        pairs.load_arrays(tmp_path)


BAD = {
    "no side": ({"audio.npy": np.eye(3)}, "has none of"),
    "two files": ({"audio.npy": np.eye(3), "music.npz": np.eye(3), "video.npy": np.eye(3)}, "keep one"),
    "unlike": ({"audio.npy": np.eye(3), "video.npy": np.eye(4)}, "3 rows of audio and 4 of video"),
    "not finite": ({"music.npy": np.array([[0.0], [np.nan]]), "video.npy": np.eye(2)}, "the first is 1"),
    "flat": ({"music.npy": np.arange(3.0), "video.npy": np.eye(3)}, r"\(n, D\)"),
}


@pytest.mark.parametrize("name", BAD)
def test_unusable_folders_are_refused_in_words(pairs, tmp_path, name):
    files, said = BAD[name]
    for file, array in files.items():
        write(tmp_path / file, array)
    with pytest.raises(PairsError, match=said):
        pairs.load_arrays(tmp_path)


@pytest.mark.parametrize("suffix", [".npz", ".pt"])
def test_pickles_in_files_are_not_run(pairs, tmp_path, suffix):
    import torch

    class Harmful:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "harm",))

    path = tmp_path / f"audio{suffix}"
    torch.save(Harmful(), path) if suffix == ".pt" else np.savez(path, np.array([Harmful()], object))
    np.save(tmp_path / "video.npy", np.eye(2))
    with pytest.raises(PairsError, match="audio"):
        pairs.load_arrays(tmp_path)
    assert not (tmp_path / "harm").exists()


# --- groups and splits


def test_equal_rows_of_any_set_of_features_are_one_group(pairs):
    first, second = draw_pairs(6, 1), draw_pairs(6, 1)
    first.music[3], second.video[5] = first.music[1], second.video[3]
    tied, n_groups = pairs.tie_equal_rows({"a": first, "b": second})
    assert n_groups == 4
    assert tied["a"].groups == tied["b"].groups
    assert len({tied["a"].groups[row] for row in (1, 3, 5)}) == 1
    assert pairs.tie_equal_rows({"a": draw_pairs(6, 1)})[1] == 6


def test_no_group_is_in_two_subsets_and_every_split_is_another(pairs):
    groups = [f"g{k // 3}" for k in range(90)]
    splits = [pairs.draw_split(groups, 30, 0.2, seed) for seed in range(5)]
    for split in splits:
        named = {subset: {groups[row] for row in rows} for subset, rows in split.items()}
        assert not named["train"] & named["test"]
        assert not named["train"] & named["val"]
        assert not named["val"] & named["test"]
        assert {subset: len(rows) for subset, rows in split.items()} == {"train": 48, "val": 12, "test": 30}
    assert len({tuple(split["test"]) for split in splits}) == 5
    np.testing.assert_array_equal(pairs.draw_split(groups, 30, 0.2, 3)["test"], splits[3]["test"])


def test_one_large_group_does_not_fill_a_subset(pairs):
    groups = ["film"] * 20 + [f"clip {k}" for k in range(40)]
    for seed in range(200):
        split = pairs.draw_split(groups, 20, 0.2, seed)
        assert all(len({groups[row] for row in rows}) > 1 for rows in split.values())
    with pytest.raises(PairsError, match="2 groups give"):
        pairs.draw_split(["a", "b"] * 10, 5, 0.2, 0)


def test_groups_of_clips_come_from_a_table_or_the_folder(pairs, tmp_path):
    table = tmp_path / "manifest.tsv"
    table.write_text("file\tsource\nclips/a.mp4\tsong 1\nclips/b.mp4\tsong 2\n")
    rows = pairs._read_table(tmp_path)
    assert [(row[0], row[3]) for row in rows] == [("clips_a.mp4", "song 1"), ("clips_b.mp4", "song 2")]
    assert rows[0][1] == str(tmp_path / "clips" / "a.mp4")
    table.unlink()
    (tmp_path / "media.csv").write_text("id,video,audio,group\nx,a.mp4,b.wav,g\n")
    assert pairs._read_table(tmp_path) == [("x", str(tmp_path / "a.mp4"), str(tmp_path / "b.wav"), "g")]


# --- running


def options(folder: Path, output: Path, *more: str) -> list[str]:
    given = ["--pairs", str(folder), "--output", str(output), "--splits", "2", "--test", "20"]
    return [*given, "--device", "cpu", "--threads", "1", *more]


@pytest.fixture
def fast(real, monkeypatch):
    monkeypatch.setitem(real.VARIANTS, "vmnet", {"epochs": 2, "model": {"embedding_dim": 8}})
    return real


@pytest.mark.long
def test_all_rows_are_measured_and_a_killed_run_goes_on(fast, tmp_path, monkeypatch):
    folder, table = write_pairs(tmp_path / "pairs"), tmp_path / "table.md"
    measured = []
    measure_row = fast.measure_row

    def watch(name, *rest):
        if len(measured) == 6:
            raise KeyboardInterrupt
        measured.append(name)
        return measure_row(name, *rest)

    monkeypatch.setattr(fast, "measure_row", watch)
    given = options(folder, tmp_path / "out", "--variants", "vmnet", "--markdown", str(table))
    with pytest.raises(KeyboardInterrupt):
        fast.main(given)
    assert measured == ["chance", "cca", "pls", "neighbours", "vmnet", "chance"]
    monkeypatch.setattr(fast, "measure_row", lambda name, *rest: measured.append(name) or measure_row(name, *rest))
    fast.main(given)
    assert measured[6:] == ["cca", "pls", "neighbours", "vmnet"]
    fast.main(given)
    assert len(measured) == 10
    fast.VARIANTS["vmnet"]["epochs"] = 3
    fast.main(given)
    assert measured[10:] == ["vmnet", "vmnet"]
    lines = table.read_text().splitlines()
    assert "120 pairs in 120 groups, 2 splits; 80 training, 20 validation, 20 test pairs" in lines[0]
    assert [line.split("|")[1].strip() for line in lines[4:]] == ["chance", "cca", "pls", "neighbours", "vmnet"]


@pytest.mark.long
def test_figures_are_those_of_the_kept_ranks(fast, tmp_path):
    folder, out = write_pairs(tmp_path / "pairs"), tmp_path / "out"
    fast.main(options(folder, out, "--variants", "vmnet"))
    results = out / "results" / "pairs"
    summary = json.loads((results / "summary.json").read_text())
    kept = [json.loads((results / f"split_{number}" / "cca.json").read_text()) for number in (0, 1)]
    ranks = np.array([item["ranks"] for item in kept])  # (splits, directions, queries)
    cca = summary["rows"]["cca"]
    for k in (1, 5, 10):
        assert cca["figures"][f"both/recall_at_{k}"]["value"] == pytest.approx((ranks <= k).mean())
    assert cca["figures"]["video_to_music/mrr"]["value"] == pytest.approx((1 / ranks[:, 1]).mean())
    assert cca["median_rank"]["music_to_video"] == pytest.approx(np.median(ranks[:, 0], axis=1).mean())
    assert cca["per_split"]["both/recall_at_10"] == pytest.approx((ranks <= 10).mean(axis=(1, 2)))
    assert summary["rows"]["chance"]["verdict"].startswith("not better than chance; worse than CCA")
    assert "against_cca" in summary["rows"]["vmnet"]
    assert not list(out.glob("results/*/split_*/state/*"))


def test_variants_can_be_added_as_settings(real, tmp_path):
    given = ["--pairs", str(tmp_path), "--variants", "best", "--add"]
    wanted = real.read_variants(real.parse([*given, 'wide={"model": {"embedding_dim": 64}}']))
    assert wanted == {"best": {"protocol": "best"}, "wide": {"model": {"embedding_dim": 64}}}
    for wrong in ("wide", "wide=5", "wide={"):
        with pytest.raises(SystemExit, match="NAME=JSON"):
            real.main([*given, wrong])


def test_an_interval_that_includes_zero_or_chance_is_told_in_words(real):
    def judge(name, low, high, own=0.2):
        estimate = {"both/recall_at_10": {"value": 0.0, "low": low, "high": high}}
        entry = {"against_cca": estimate, "against_vmnet": estimate, "figures": {"both/recall_at_10": {"low": own}}}
        return sys.modules["real_report"].judge(name, entry, {10: 0.1})

    assert judge("best", 0.01, 0.02) == "better than CCA; better than VM-NET"
    assert judge("best", -0.02, -0.01) == "worse than CCA; worse than VM-NET"
    assert judge("best", -0.01, 0.01) == "not different from CCA; not different from VM-NET"
    assert judge("vmnet", 0.0, 0.01) == "not different from CCA"
    assert judge("cca", 0.01, 0.02, own=0.1) == "not better than chance; better than VM-NET"


def test_the_unit_of_a_feature_does_not_matter_to_baselines(real):
    drawn = {name: draw_pairs(n, seed) for name, n, seed in (("train", 60, 1), ("val", 20, 2), ("test", 40, 3))}
    scale = 10.0 ** np.arange(-3, 9).astype(np.float32)
    scaled = {name: replace(pairs, music=pairs.music * scale) for name, pairs in drawn.items()}
    rows = [real.measure_row("cca", {}, TrainParams(), subsets, Path()) for subsets in (drawn, scaled)]
    np.testing.assert_allclose(rows[0].values, rows[1].values)
