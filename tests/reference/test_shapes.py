"""Features that are the wrong way round, of too many axes, or under names that the csv file spells otherwise."""

import unicodedata

import numpy as np
import pytest

from reference_data import make_reference_data
from vmnet_pipeline.errors import EmbedderError, PairsError
from vmnet_pipeline.inference.input_spec import InputSpec
from vmnet_pipeline.pairs.packing import read_pairs, write_pairs
from vmnet_pipeline.reference.layout import locate_subsets, make_layout, recognise_variant
from vmnet_pipeline.reference.planning import plan_reference_pairs
from vmnet_pipeline.reference.shapes import check_axes, list_shapes

COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "Déjà vu") for form in ("NFC", "NFD"))


def pack(folder, target, **settings):
    layout = make_layout(locate_subsets(folder))
    write_pairs(target, plan_reference_pairs(layout, val_share=0.2, seed=17, **settings))
    return read_pairs(target)


@pytest.fixture
def data(tmp_path):
    return make_reference_data(tmp_path / "data")


def change(folder, modality, make):
    for number, path in enumerate(sorted(folder.rglob(f"{modality}/*.npy"))):
        np.save(path, make(np.load(path), number))


@pytest.mark.parametrize(("modality", "side", "width"), [("audio", "music", 24), ("video", "video", 30)])
def test_transposed_features_are_refused_with_their_shapes(data, tmp_path, modality, side, width):
    change(data, modality, lambda array, number: array.T)
    message = (
        rf"The {side} features look transposed: the first axis is {width} in all files, and the second varies from \d+"
    )
    with pytest.raises(PairsError, match=message) as caught:
        pack(data, tmp_path / "pairs")
    assert f" x ({width}, " in str(caught.value)
    assert "array.T" in str(caught.value)


@pytest.mark.parametrize(("modality", "side"), [("audio", "music"), ("video", "video")])
@pytest.mark.parametrize("steps", [None, 100])
def test_transposed_features_of_one_length_are_doubted(data, tmp_path, caplog, modality, side, steps):
    change(data, modality, lambda array, number: np.random.default_rng(number).random((90, 60), np.float32))
    pack(data, tmp_path / "pairs", music_steps=steps, video_steps=steps)
    warning = f"{side} features: all 34 files are (90, 60), which is read as 90 steps of 60 values each"
    assert [record.levelname for record in caplog.records if warning in record.getMessage()] == ["WARNING"]


def test_shapes_are_listed_and_good_ones_raise_no_doubt(data, tmp_path, caplog):
    caplog.set_level("INFO")
    pack(data, tmp_path / "pairs")
    assert "music features: 12 x (18, 24), 11 x (19, 24), 11 x (20, 24)" in caplog.text
    assert "transposed" not in caplog.text
    assert list_shapes([(k,) for k in range(9)] + [(0,)]).startswith("2 x (0,), 1 x (1,)")
    assert list_shapes([(k,) for k in range(9)]).endswith(", and 3 other shapes")


def test_single_files_of_another_width_are_no_transposed_side():
    shapes = {str(k): (18, 24) for k in range(10)} | {"a": (18, 99), "b": (18, 98), "c": None}
    check_axes("music", shapes)


@pytest.mark.parametrize(("modality", "side", "hint"), [
    ("audio", "music", "Raw VGGish belongs to variant=vmnet_vggish"),
    ("video", "video", "Average over all axes but that of time and that of the video feature"),
])  # fmt: skip
def test_four_axes_are_explained_for_the_side_that_has_them(data, tmp_path, modality, side, hint):
    change(data, modality, lambda array, number: np.zeros((5, 3, 8, 8), np.float32) if number == 30 else array)
    with pytest.raises(PairsError, match=rf"{side} feature of shape \(5, 3, 8, 8\) is neither.*{hint}") as caught:
        pack(data, tmp_path / "pairs")
    if side == "video":
        assert "VGGish" not in str(caught.value)
        assert "vmnet_vggish" not in str(caught.value)


def test_channels_behind_time_and_mel_are_doubted(tmp_path, caplog):
    data = make_reference_data(tmp_path / "data", kind="raw_vggish", n_train=3, n_test=2)
    change(data, "audio", lambda array, number: array.transpose(0, 2, 3, 1))
    pack(data, tmp_path / "pairs")
    assert "5 files with four axes, e.g. (62, 6, 4, 512), are read as (T, C, time, mel)" in caplog.text


def test_swapped_time_and_channels_of_four_axes_are_refused_or_doubted(tmp_path, caplog):
    data = make_reference_data(tmp_path / "data", kind="raw_vggish", n_train=3, n_test=2)
    change(data, "audio", lambda array, number: array.swapaxes(0, 1))
    pack(data, tmp_path / "pairs")
    assert "(512, 62), which is read as 512 steps of 62 values each" in caplog.text
    assert "save array.swapaxes(0, 1) in their place" in caplog.text
    change(data, "audio", lambda array, number: array[:, number:])
    with pytest.raises(
        PairsError, match=r"music features look transposed: the first axis is 512 in all files, .*swapaxes"
    ):
        pack(data, tmp_path / "pairs")


def test_the_embedder_says_that_an_array_looks_transposed():
    spec = InputSpec("music", (24,), takes_steps=False)
    for array in (np.zeros((24, 18), np.float32), np.zeros((2, 24, 18), np.float32)):
        with pytest.raises(EmbedderError, match="these look transposed"):
            spec.read(array)


# --- names of the files


def test_files_of_a_mac_are_found_by_the_names_of_linux_and_the_other_way_round(data, tmp_path):
    for modality, spelling in (("audio", DECOMPOSED), ("video", COMPOSED)):
        (data / "test" / modality / "024.npy").rename(data / "test" / modality / f"{spelling}.npy")
        (data / "test" / modality / "025.npy").rename(data / "test" / modality / f"x {spelling}.npy")
    rows = [COMPOSED, f"x {DECOMPOSED}", "026.npy", "027.wav", "-aB", "_x"]
    for modality in ("audio", "video"):
        for old, new in (("028", "-aB"), ("029", "_x")):
            (data / "test" / modality / f"{old}.npy").rename(data / "test" / modality / f"{new}.npy")
    (data / "test.csv").write_text("id\n" + "\n".join(rows), encoding="utf-8")
    pairs = pack(data, tmp_path / "pairs").subset("test")
    assert pairs.ids == tuple(unicodedata.normalize("NFC", row) for row in rows)
    np.testing.assert_allclose(pairs.video[0], np.load(data / "test/video" / f"{COMPOSED}.npy").mean(0), rtol=1e-6)


def test_folders_and_tables_in_any_case(tmp_path):
    folder = make_reference_data(tmp_path / "data", kind="raw_vggish", n_train=3, n_test=2)
    (folder / "train").rename(folder / "Train")
    (folder / "test.csv").rename(folder / "TEST.csv")
    (folder / "Train/audio").rename(folder / "Train/Audio")
    (folder / "test/video").rename(folder / "test/videos")
    folder.rename(tmp_path / DECOMPOSED)
    assert recognise_variant(locate_subsets(tmp_path / COMPOSED)) == "vmnet_vggish"
    assert pack(tmp_path / COMPOSED, tmp_path / "pairs").sizes == {"train": 3, "val": 0, "test": 2}


def test_a_missing_file_that_differs_in_case_only_is_told_as_that(data, tmp_path):
    (data / "test/audio/024.npy").rename(data / "test/audio/aBc.npy")
    (data / "test/video/024.npy").rename(data / "test/video/ABC.npy")
    (data / "test.csv").write_text("id\nABC\n025\n")
    with pytest.raises(
        PairsError, match=r"ABC\.npy is missing \(aBc\.npy there differs in upper and lower case only\)"
    ):
        pack(data, tmp_path / "pairs")
