"""Lists of moments: reading, metrics by hand, and the priors that a list gives away."""

from __future__ import annotations

import numpy as np
import pytest

from vmnet_pipeline.errors import IngestError, ParameterError
from vmnet_pipeline.experiments.moments import (
    COLUMNS,
    Moment,
    compare_priors,
    format_priors,
    leave_out_tracks,
    measure_grounding,
    measure_overlap,
    measure_retrieval,
    read_moments,
    take_known_starts,
)

HEAD = f"{','.join(COLUMNS)},music_path,video_category"


def write(path, *rows):
    path.write_text("\n".join([HEAD, *rows]))
    return path


def make(video, music, start, length=20.0, total=180.0):
    return Moment(video, music, start, start + length, length, total)


def test_a_list_is_read_by_its_column_names(tmp_path):
    path = write(tmp_path / "test_data.csv", "7,4+5x,0.0,33.9,85.8,119.7,224.6,/a+b.mp3,Beauty", "8,x,1,11,0,12,11,p,q")
    first, second = read_moments(path)
    assert first == Moment("7", "4+5x", 85.8, 119.7, 33.9, 224.6)
    assert (second.end_s, second.video_s) == (11.0, 10.0)  # the end is cut to the track


@pytest.mark.parametrize(
    "row",
    ["7,x,0,30,90,80,200,,", "7,x,0,30,nan,80,200,,", "7,x,0,30,a,80,200,,", "7,x,0,0,0,8,200,,", "7,x,0,9,8,9,5,,"],
)
def test_rows_that_are_no_moments_are_named(tmp_path, row):
    with pytest.raises(IngestError, match="row 2"):
        read_moments(write(tmp_path / "list.csv", row))


def test_lists_without_rows_or_columns_are_refused(tmp_path):
    with pytest.raises(IngestError, match="no rows"):
        read_moments(write(tmp_path / "list.csv"))
    (tmp_path / "list.csv").write_text("video_id,music_id\n1,2\n")
    with pytest.raises(IngestError, match="video_start"):
        read_moments(tmp_path / "list.csv")


def test_overlap_by_hand():
    assert measure_overlap((0, 10), (5, 15)) == pytest.approx(1 / 3)
    assert measure_overlap((0, 10), (10, 20)) == 0.0
    assert measure_overlap((0, 10), (0, 10)) == 1.0
    moments = [make("a", "x", 10.0), make("b", "y", 0.0, total=20.0)]
    found = measure_grounding(moments, [(15.0, 35.0), (-5.0, 40.0)])  # 15 of 25 s, and all of a short track
    assert found == {"miou": pytest.approx(0.8), "iou_above_0.3": 1.0, "iou_above_0.5": 1.0, "iou_above_0.7": 0.5}
    with pytest.raises(ParameterError, match="one span"):
        measure_grounding(moments, [(0, 1)])


def test_tracks_and_moments_have_to_be_found():
    moments = [make("a", "x", 10.0), make("b", "y", 10.0), make("c", "z", 10.0)]
    ranking = [["x", "y"], ["x", "x", "y"], ["y", "x"]]
    spans = [(10, 30), (100, 120), (10, 30)]
    nearly = measure_retrieval(moments, ranking, [(16, 36), *spans[1:]], ks=(1,))  # 14 of 26 s are not enough
    assert nearly == {"recall_at_1": pytest.approx(1 / 3), "moment_recall_at_1": 0.0}
    found = measure_retrieval(moments, ranking, spans, ks=(1, 2))
    assert found == pytest.approx(
        {"recall_at_1": 1 / 3, "recall_at_2": 2 / 3, "moment_recall_at_1": 1 / 3, "moment_recall_at_2": 1 / 3}
    )


def make_lists(rng, n_tracks=300, shared=0.9):
    """Two lists in which a track usually has one favourite start, often the beginning."""
    favourites = np.where(rng.random(2 * n_tracks) < 0.5, 0.0, rng.uniform(0, 150, 2 * n_tracks))
    other = [k if rng.random() < shared else k + n_tracks for k in range(n_tracks)]

    def draw(tracks):
        starts = [favourites[k] if rng.random() < 0.9 else rng.uniform(0, 150) for k in tracks]
        return [make(f"v{k}", f"m{k}", start) for k, start in zip(tracks, starts, strict=True)]

    return draw(range(n_tracks)), draw(other)


def test_the_start_of_the_same_track_in_the_other_list_beats_the_start_at_zero_only_where_tracks_are_shared():
    val, test = make_lists(np.random.default_rng(0))
    rows = {(row["method"], row["rows"]): row for row in compare_priors(test, val)}
    known = "start of the same track in the other list"
    assert rows[known, "all"]["miou"] > rows["start at 0", "all"]["miou"] + 0.2
    assert rows[known, "other tracks"]["miou"] == rows["start at 0", "other tracks"]["miou"]
    assert rows[known, "other tracks"]["n"] == len(leave_out_tracks(test, val)) < len(test)
    text = format_priors(list(rows.values()))
    assert text.startswith("| method | rows | n | miou |")
    assert len(text.splitlines()) == 6


def test_predictions_stand_beside_the_priors():
    val, test = make_lists(np.random.default_rng(1))
    rows = compare_priors(test, val, {"right": [(moment.start_s, moment.end_s) for moment in test]})
    assert [row["miou"] for row in rows if row["method"] == "right"] == [1.0, 1.0]
    shuffled = [
        take_known_starts(val)(moment) for moment in np.random.default_rng(2).permutation(np.array(test, object))
    ]
    miou = {
        row["method"]: row["miou"] for row in compare_priors(test, val, {"shuffled": shuffled}) if row["rows"] == "all"
    }
    assert miou["shuffled"] < miou["start at 0"]
