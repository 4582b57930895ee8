"""Groups from the names of files."""

import logging
import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from vmnet_pipeline.errors import IngestError
from vmnet_pipeline.hooks.config_loader import quote_names
from vmnet_pipeline.ingestion.discovery import SourceItem
from vmnet_pipeline.ingestion.grouping import group_items, strip_number
from vmnet_pipeline.ingestion.splits import SUBSETS, split_by_group
from vmnet_pipeline.params import IngestParams
from vmnet_pipeline.pipelines.ingest.nodes import ingest_media

CUTS = [f"bbb_{k:03d}" for k in range(0, 28, 2)] + [f"queen_{k:03d}" for k in range(15)]
SINGLE = [f"hw_{name}_0" for name in ("Art", "Bath", "Cave", "City", "Eyes", "Golf", "Snow", "Hell", "Cake", "Blox")]
SINGLE += ["up", "abyss", "dawn", "rain", "wind"]


def make_items(names, group=""):
    return [SourceItem(name, f"/m/{name}.mp4", f"/m/{name}.mp4", group) for name in names]


def list_groups(found):
    return [item.group for item in found.items]


def test_cuts_of_one_film_are_on_one_side_of_the_split():
    """As bbb_000.mp4, bbb_002.mp4 ... of one film once stood on both sides."""
    found = group_items(make_items(CUTS + SINGLE))
    assert list_groups(found) == ["bbb"] * 14 + ["queen"] * 15 + [""] * 15
    assert found.sentence.startswith(
        "17 of 44 items by names without their last number, e.g. queen (15 items), bbb (14 items). ingest.group="
    )
    assert not found.is_doubtful
    groups = [item.group or item.id for item in found.items]
    for seed in range(5):
        split = split_by_group(CUTS + SINGLE, groups, {"train": 0.6, "val": 0.15, "test": 0.25}, seed)
        sides = [{name for name in getattr(split, subset) if name.startswith("bbb")} for subset in SUBSETS]
        assert sorted(map(len, sides)) == [0, 0, 14]


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("bbb_002", "bbb"),
        ("bbb2", "bbb"),
        ("Film - Part 2", "Film"),
        ("film.scene.012", "film"),
        ("holiday (3)", "holiday"),
        ("id-x_000010_000020", "id-x"),
        ("film3_002", "film3"),
        ("series/s01/e02", "series/s01/e"),
        ("series/01", "series"),
        ("series/clip_01", "series"),
        ("01", ""),
        ("clip_01", ""),
        ("Blade", ""),
        ("été 2", "été"),
        ("_" * 250 + "1_" * 100 + "x", ""),
    ],
)
def test_the_number_at_the_end_of_a_name_is_not_part_of_its_group(name, group):
    assert strip_number(name) == group


def test_names_that_would_leave_nothing_to_divide_are_not_groups_unless_asked_for():
    camera = make_items([f"IMG_{k:04d}" for k in range(30)] + ["party", "rain"])
    found = group_items(camera)
    assert found.is_doubtful
    assert "would make 3 group(s) of 32 items, e.g. IMG (30 items)" in found.sentence
    assert not any(list_groups(found))
    assert list_groups(group_items(camera, "regex")).count("IMG") == 30
    two = make_items([f"{film}_{k}" for film in "ab" for k in range(9)])
    assert group_items(two).is_doubtful
    assert len(set(list_groups(group_items(two, "regex")))) == 2


def test_folders_are_groups_when_asked_for():
    items = make_items(["ann/x", "ann/y", "bob/x", "bob/z/1", "c"])
    assert list_groups(group_items(items, "parent")) == ["ann", "ann", "", "", ""]
    assert list_groups(group_items(items, "regex", r"^(\w+)/")) == ["ann", "ann", "bob", "bob", ""]
    assert list_groups(group_items(items)) == [""] * 5
    with pytest.raises(IngestError, match=r"no group comes from folders, the first file is '/m/x\.mp4'"):
        group_items(make_items(["x", "y"]), "parent")


def test_a_pattern_of_ones_own():
    items = make_items(["2024-ann-1", "2024-bob-1", "2023-ann-2", "zoe"])
    assert list_groups(group_items(items, "regex", r"-(\w+)-")) == ["ann", "", "ann", ""]
    assert list_groups(group_items(items, None, r"^\d{4}")) == ["2024", "2024", "", ""]
    with pytest.raises(IngestError, match=re.escape("no group comes from what (x+) finds in names")):
        group_items(items, "regex", "(x+)")


def test_groups_of_a_table_are_taken_as_they_are():
    items = [*make_items(["a_1", "a_2"], "mine"), *make_items(["b_1", "b_2", "c", "d", "e"])]
    assert list_groups(group_items(items)) == ["mine", "mine", "", "", "", "", ""]
    assert list_groups(group_items(items, "table")) == ["mine", "mine", "", "", "", "", ""]
    assert list_groups(group_items(items, "regex")) == ["mine", "mine", "b", "b", "", "", ""]
    assert list_groups(group_items(items, "none")) == [""] * 7
    with pytest.raises(IngestError, match=r"no media\.csv with a group in any row"):
        group_items(make_items(["a_1"]), "table")


def test_audio_alone_and_failed_items_are_no_obstacle():
    items = [SourceItem("x", "", "/m/x_1.mp3"), SourceItem("y", "", "/m/x_2.mp3", reason="no_video_file")]
    assert list_groups(group_items(items)) == ["", ""]
    assert group_items([]).items == []


def test_the_run_says_what_was_taken(tmp_path, caplog):
    for name in ("a_1", "a_2", "b", "c", "d"):
        Path(tmp_path / f"{name}.mp4").write_bytes(b"no video")
    with caplog.at_level(logging.INFO), pytest.raises(IngestError, match="None of the 5 items"):
        ingest_media(IngestParams(media_dir=str(tmp_path)), tmp_path / "cache")
    assert "Groups: 4 of 5 items by names without their last number, e.g. a (2 items)" in caplog.text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"group": "folder"}, "group"),
        ({"group_regex": "("}, "group_regex is no regular expression"),
        ({"group": "parent", "group_regex": "x"}, "group_regex belongs to group=regex, not to group=parent"),
    ],
)
def test_rules_that_are_none_are_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        IngestParams(media_dir="x", **settings)


def test_a_pattern_on_the_command_line_is_taken_literally():
    assert quote_names(r"ingest.group_regex=^(\d{1,3})_") == r'ingest.group_regex="^(\\d{1\u002c3})_"'
