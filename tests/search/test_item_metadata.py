import pandas as pd
import pytest

from vmnet_pipeline.errors import IngestError
from vmnet_pipeline.ingestion.schemas import MANIFEST_COLUMNS
from vmnet_pipeline.search.item_metadata import choose_side, describe_items, read_extra_columns


def make_manifest():
    rows = [
        {"id": "007", "status": "ok", "group": "g", "video_path": "/m/Night Drive.mp4", "audio_path": "/m/a.ogg",
         "audio_duration_s": 11.5, "video_duration_s": 12.0},
        {"id": "b", "status": "failed", "video_path": "/m/b.mp4", "audio_path": "/m/b.mp4"},
        {"id": "c", "status": "ok", "group": "c", "video_path": "", "audio_path": "/m/Song.ogg"},
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=list(MANIFEST_COLUMNS))


def test_items_are_described_from_manifest_tags_and_the_users_own_columns(tmp_path):
    text = "id,video,audio,title,licence,mood\n007,a.mp4,,,CC-BY,dark\nc,,,Other,,\nzz,x,,,,\n"
    (tmp_path / "media.csv").write_text(text)
    extra = read_extra_columns(tmp_path)
    assert list(extra.columns) == ["id", "title", "licence", "mood"]
    table = describe_items(make_manifest(), extra, {"007": ["rock", "hard rock"]})
    assert table["id"].tolist() == ["007", "c"]
    assert table["title"].tolist() == ["Night Drive", "Other"]
    assert table["licence"].tolist() == ["CC-BY", ""]
    assert table["mood"].tolist() == ["dark", ""]
    assert table["tags"].tolist() == ["rock, hard rock", ""]
    assert choose_side(table, "music")["duration_s"].tolist()[0] == 11.5
    video = choose_side(table, "video")
    assert video["duration_s"].tolist()[0] == 12.0
    assert "audio_duration_s" not in video


def test_a_collection_without_a_csv_file_has_no_columns_of_its_own(tmp_path):
    for place in (tmp_path, tmp_path / "none.csv"):
        assert read_extra_columns(place)["id"].tolist() == []
    (tmp_path / "media.csv").write_text("id,title\n")
    table = describe_items(make_manifest(), read_extra_columns(tmp_path), {})
    assert table["title"].tolist() == ["Night Drive", "Song"]
    (tmp_path / "other.csv").write_text("name\nx\n")
    with pytest.raises(IngestError, match="no column id"):
        read_extra_columns(tmp_path / "other.csv")
