import random

import pytest

from vmnet_pipeline.errors import IngestError, MediaError
from vmnet_pipeline.ingestion.discovery import SourceItem
from vmnet_pipeline.ingestion.manifest import build_manifest, describe_counts, summarise_manifest
from vmnet_pipeline.ingestion.schemas import MANIFEST_COLUMNS, check_manifest
from vmnet_pipeline.reporting.run_tables import lay_out_failures
from vmnet_pipeline.types import MediaInfo, StreamInfo


def draw_collection(seed):
    """Items that share files, files that share content, given groups, broken files, missing sides."""
    draw = random.Random(seed)
    known = {}
    for k in range(draw.randint(2, 20)):
        sound = StreamInfo("aac", draw.choice([None, 3.5])) if draw.random() < 0.9 else None
        picture = StreamInfo("h264", draw.choice([None, 3.0]), width=64) if draw.random() < 0.9 else None
        info = MediaInfo("mp4", draw.choice([None, 9.0]), 5, f"sum-{draw.randint(0, 15)}", sound, picture)
        known[f"/m/{k}.mp4"] = info if draw.random() < 0.9 else MediaError("undecodable_video", "broken")
    items = []
    for k in range(draw.randint(1, 25)):
        video, audio = draw.choice(list(known)), draw.choice(list(known))
        reason = "no_video_file" if draw.random() < 0.1 else ""
        items.append(
            SourceItem(
                f"i{k}", "" if reason else video, audio, draw.choice(["", "", "g", "h", "item:z"]), reason, reason
            )
        )
    return items, known


def judge_item(item, known):
    """Reason of one item, by asking for one thing after the other."""
    if item.reason:
        return item.reason
    for side, path in (("video", item.video), ("audio", item.audio)):
        info = known[path]
        if isinstance(info, MediaError):
            return info.reason
        if getattr(info, side) is None:
            return f"no_{side}_stream"
    return ""


def spread_groups(items, known):
    """Groups by passing names on until nothing changes."""
    names = {item.id: ("group", item.group) if item.group else ("item", item.id) for item in items}
    probed = {path for item in items if not item.reason for path in (item.video, item.audio)}
    sums_of = {path: known[path].checksum for path in probed if isinstance(known[path], MediaInfo)}
    sums = {item.id: {sums_of[path] for path in (item.video, item.audio) if path in sums_of} for item in items}
    own, changed = dict(names), True
    while changed:
        changed = False
        for one in items:
            for other in items:
                tied = own[one.id] == own[other.id] or sums[one.id] & sums[other.id]
                if tied and names[other.id] < names[one.id]:
                    names[one.id], changed = names[other.id], True
    return {item_id: name for item_id, (_, name) in names.items()}


def test_warnings_of_probing_are_in_the_row_and_the_counts():
    cut = MediaInfo("mp4", 9.0, 5, "a", StreamInfo("aac", 9.0), StreamInfo("h264", 9.0, width=64, warning="cut at 4 s"))
    whole = MediaInfo("mp4", 9.0, 5, "b", StreamInfo("aac", 9.0), StreamInfo("h264", 9.0, width=64))
    items = [SourceItem(name, f"/m/{name}", f"/m/{name}", "", "", "") for name in ("cut", "whole")]
    manifest = build_manifest(items, {"/m/cut": cut, "/m/whole": whole}.__getitem__)
    rows = manifest.set_index("id")
    assert (rows["status"] == "ok").all()
    assert rows["video_warning"].to_dict() == {"cut": "cut at 4 s", "whole": ""}
    assert rows["audio_warning"].to_dict() == {"cut": "", "whole": ""}
    summary = summarise_manifest(manifest)
    assert summary["warned_items"] == [{"id": "cut", "video_warning": "cut at 4 s", "audio_warning": ""}]
    assert describe_counts(summary).endswith("0 failed; 1 with a warning")
    rows = lay_out_failures([("ingest", summary)])["rows"]
    assert rows == [["ingest", "used, with a warning", "1", "cut: cut at 4 s"]]


@pytest.mark.parametrize("seed", range(30))
def test_columns_say_what_a_loop_over_items_says(seed):
    items, known = draw_collection(seed)

    def probe(path):
        if isinstance(known[path], MediaError):
            raise known[path]
        return known[path]

    rows = build_manifest(items, probe).set_index("id")
    reasons = {item.id: judge_item(item, known) for item in items}
    first = {}
    for item in items:
        if not reasons[item.id]:
            content = (known[item.video].checksum, known[item.audio].checksum)
            original = first.setdefault(content, item.id)
            reasons[item.id] = "" if original == item.id else "duplicate"
            assert rows.loc[item.id, "duplicate_of"] == ("" if original == item.id else original)
            duration = known[item.audio].audio.duration_s or known[item.audio].duration_s
            assert rows.loc[item.id, "audio_duration_s"] == duration or duration is None
    assert rows["reason"].to_dict() == reasons
    statuses = {"": "ok", "duplicate": "duplicate"}
    assert rows["status"].to_dict() == {name: statuses.get(reason, "failed") for name, reason in reasons.items()}
    assert rows["group"].to_dict() == spread_groups(items, known)


def make_manifest():
    return build_manifest([SourceItem("007", "", "/a.mp3", "", "no_video_file", "x")], lambda path: None)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("id", ["a", "a"], "duplicate"),
        ("id", ["a", ""], "str_length"),
        ("status", ["ok", "perhaps"], "isin"),
        ("audio_path", ["a", None], "null"),
        ("width", [1.5, 2.0], "dtype|type"),
    ],
)
def test_what_is_no_manifest_is_refused(tmp_path, name, value, message):
    import pandas as pd

    good = pd.concat([make_manifest()] * 2, ignore_index=True).assign(id=pd.Series(["a", "b"], dtype="str"))
    assert list(check_manifest(good, tmp_path).columns) == list(MANIFEST_COLUMNS)
    bad = good.assign(**{name: pd.Series(value, dtype="float64" if name == "width" else "str")})
    with pytest.raises(IngestError, match=message):
        check_manifest(bad, tmp_path)
    with pytest.raises(IngestError, match=name):
        check_manifest(good.drop(columns=name), tmp_path)
