"""Names that people write in csv files mean items: by id, by stem, with suffix, with folders, in any spelling."""

import shutil
import unicodedata

import pandas as pd
import pytest

from vmnet_pipeline.demo import make_clip
from vmnet_pipeline.errors import SplitError
from vmnet_pipeline.ingestion.discovery import find_items
from vmnet_pipeline.ingestion.ids import make_safe_name
from vmnet_pipeline.ingestion.manifest import build_manifest
from vmnet_pipeline.ingestion.matching import match_names
from vmnet_pipeline.media.probe import probe_media
from vmnet_pipeline.params import IngestParams, SplitParams
from vmnet_pipeline.pipelines.split.nodes import split_items
from vmnet_pipeline.search.item_metadata import describe_items, read_extra_columns

COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "Déjà vu") for form in ("NFC", "NFD"))
FILES = [
    "plain.mp4", "-aBc_1.mp4", f"{DECOMPOSED}.mp4", "sub/deep one.mp4", "a/same.mp4", "b/same.mp4", "what?.mp4",
    "x.y.mp4", "Abc.mp4", "abc.mp4",
]  # fmt: skip


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    """Ten films, each of other content, and their manifest."""
    folder = tmp_path_factory.mktemp("films")
    film = make_clip(folder / "film.mp4", seed=1, duration_s=1.0, width=64, height=48).read_bytes()
    (folder / "film.mp4").unlink()
    for number, name in enumerate(FILES):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(film + b"%d" % number)
    return folder, build_manifest(find_items(folder), probe_media)


def find(manifest, name):
    (item_id,) = manifest.loc[manifest["video_path"].str.endswith(f"/{name}"), "id"]
    return item_id


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("plain", "plain.mp4"),
        ("plain.mp4", "plain.mp4"),
        ("./plain.mp4", "plain.mp4"),
        ("-aBc_1", "-aBc_1.mp4"),
        ("-aBc_1.mp4", "-aBc_1.mp4"),
        (COMPOSED, FILES[2]),
        (DECOMPOSED, FILES[2]),
        (f"{COMPOSED}.mp4", FILES[2]),
        ("deep one", "sub/deep one.mp4"),
        ("x.y", "x.y.mp4"),
        ("deep one.mp4", "sub/deep one.mp4"),
        ("sub/deep one", "sub/deep one.mp4"),
        ("sub\\deep one.mp4", "sub/deep one.mp4"),
        ("a/same", "a/same.mp4"),
        ("b/same.mp4", "b/same.mp4"),
        ("what?", "what?.mp4"),
        ("x.y.MP4", "x.y.mp4"),
        ("plain.avi", "plain.mp4"),
        ("b/same.flac", "b/same.mp4"),
        ("Abc", "Abc.mp4"),
        ("abc.mp4", "abc.mp4"),
        (make_safe_name("-aBc_1"), "-aBc_1.mp4"),
        (make_safe_name("sub/deep one"), "sub/deep one.mp4"),
    ],
)
def test_a_name_means_an_item(collection, name, file):
    _, manifest = collection
    wanted = find(manifest, file)
    for form in (name, wanted):
        matched = match_names([form], manifest)
        assert matched.ids.get(form, form) == wanted
        assert not matched.several


def test_a_name_that_fits_several_or_none_means_nothing(collection):
    _, manifest = collection
    matched = match_names(["same", "none", "PLAIN", "lain.mp4", "x.z", "plain.fr"], manifest)
    assert matched.ids == {}
    assert matched.several == {"same": sorted(find(manifest, f"{folder}/same.mp4") for folder in "ab")}
    assert matched.near == {"PLAIN": "plain"}


def test_a_split_of_stems_is_the_split_of_these_items(collection, tmp_path, caplog):
    folder, manifest = collection
    stems = [name.rpartition("/")[2].removesuffix(".mp4") for name in FILES]
    (tmp_path / "train.csv").write_text(
        "\ufeffid;note\n" + "".join(f"{stem};x\n" for stem in stems[:4]), encoding="utf-8"
    )
    (tmp_path / "test.csv").write_text("id\na/same.mp4\nb\\same\nwhat?\nx.y.mp4\nsame\nPlain\n")
    caplog.set_level("INFO")
    params = SplitParams(split_dir=str(tmp_path))
    train, _, test, summary = split_items(manifest, params, IngestParams(media_dir=str(folder)))
    assert train == tuple(find(manifest, name) for name in FILES[:4])
    assert test[:4] == tuple(find(manifest, name) for name in ("a/same.mp4", "b/same.mp4", "what?.mp4", "x.y.mp4"))
    doubts = " | ".join(summary["doubts"])
    assert "'same' is left out, it may be a-same-" in doubts
    assert "'Plain' is not an item; 'plain' differs from it in case only" in doubts
    assert "2 id(s) have no usable media and are left out: same, Plain" in doubts
    assert "name(s) are not ids and taken for files, e.g. 'deep one' -> sub-deep_one-" in doubts


def test_one_item_by_two_names_on_two_sides_is_refused(collection, tmp_path):
    folder, manifest = collection
    (tmp_path / "train.csv").write_text("id\nplain\n")
    (tmp_path / "test.csv").write_text("id\nplain.mp4\n")
    with pytest.raises(SplitError, match=r"'plain' is in train\.csv and again in test\.csv"):
        split_items(manifest, SplitParams(split_dir=str(tmp_path)), IngestParams(media_dir=str(folder)))


def test_metadata_by_the_names_of_a_media_csv(collection, tmp_path):
    folder, _ = collection
    rows = ["Abc,Abc.mp4,First", "abc,abc.mp4,Second", "a/b,plain.mp4,Third"]
    for name in ("Abc.mp4", "abc.mp4", "plain.mp4"):
        shutil.copy(folder / name, tmp_path / name)
    (tmp_path / "media.csv").write_text("id,video,title\n" + "\n".join(rows))
    manifest = build_manifest(find_items(tmp_path), probe_media)
    assert not set(manifest["id"]) & {"Abc", "abc", "a/b"}
    table = describe_items(manifest, read_extra_columns(tmp_path), {})
    assert table["title"].tolist() == ["First", "Second", "Third"]
    by_file = pd.DataFrame({"id": ["abc.mp4"], "title": ["Other"]}, dtype="str")
    assert describe_items(manifest, by_file, {})["title"].tolist() == ["Abc", "Other", "plain"]
