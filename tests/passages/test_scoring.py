"""Passages: planted ones are found, and each term says what it is meant to say."""

from __future__ import annotations

import json

import numpy as np
import pytest

from vmnet_pipeline.params import PassageParams, PieceParams
from vmnet_pipeline.passages.scoring import (
    Pair,
    choose_passages,
    correlate_energy,
    describe_passage,
    judge_end,
    judge_start,
    match_cuts,
    rank_by_pieces,
)
from vmnet_pipeline.passages.tracks import TrackStructure
from vmnet_pipeline.passages.videos import VideoStructure

PIECES = PieceParams(window_s=10.0, hop_s=5.0)
ONLY_AGREEMENT = PassageParams(start=0, end=0, energy=0, cuts=0)


def make_track(duration_s=180.0, *, beat_s=0.5, sections=(0.0, 64.0), energy=None):
    beats = np.arange(0, duration_s, beat_s) if beat_s else np.empty(0)
    energy = np.zeros(round(2 * duration_s)) if energy is None else energy
    return TrackStructure(duration_s, 0.0, duration_s, beats, beats[::4], 4, np.array(sections), energy, 120.0)


def make_video(duration_s=30.0, cuts=(), motion=None):
    motion = np.zeros(round(2 * duration_s)) if motion is None else motion
    return VideoStructure(duration_s, np.array(cuts, float), motion)


def make_rows(rng, n, dim=32):
    rows = rng.standard_normal((n, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def plant(rng, n_track, n_video, at, noise=0.6):
    track = make_rows(rng, n_track)
    video = track[at : at + n_video] + noise * make_rows(rng, n_video)
    return video / np.linalg.norm(video, axis=1, keepdims=True), track


def test_planted_passages_are_found_within_one_piece_and_shifted_ones_are_not():
    """The control compares the place that is found with that of another passage: chance."""
    rng, errors, controls = np.random.default_rng(3), [], []
    for _ in range(60):
        at, other = rng.integers(0, 29, 2)
        video, track = plant(rng, 35, 5, at)
        pair = Pair(make_track(), make_video(), video @ track.T, PIECES)
        (found,) = choose_passages(pair, ONLY_AGREEMENT)
        errors.append(abs(found.start_s - at * PIECES.hop_s))
        controls.append(abs(found.start_s - other * PIECES.hop_s))
    assert np.mean(np.array(errors) <= PIECES.hop_s) > 0.95
    assert np.mean(np.array(controls) <= PIECES.hop_s) < 0.25


def test_shuffled_pieces_fall_to_chance():
    rng, hits = np.random.default_rng(4), []
    for _ in range(60):
        at = int(rng.integers(0, 29))
        video, track = plant(rng, 35, 5, at)
        pair = Pair(make_track(), make_video(), video @ rng.permutation(track).T, PIECES)
        (found,) = choose_passages(pair, ONLY_AGREEMENT)
        hits.append(abs(found.start_s - at * PIECES.hop_s) <= PIECES.hop_s)
    assert np.mean(hits) < 0.3


def test_the_whole_file_score_is_that_of_its_best_passage():
    video, track = plant(np.random.default_rng(5), 40, 6, 17, noise=0.0)
    assert rank_by_pieces(video, track) == pytest.approx(1.0, abs=1e-5)
    assert rank_by_pieces(video, np.roll(track, 3, axis=0)) == pytest.approx(1.0, abs=1e-5)
    assert rank_by_pieces(video, np.random.default_rng(6).permutation(track)) < 0.6
    assert rank_by_pieces(track[:6], track[:2]) < 0.6  # a short track repeats
    assert rank_by_pieces(np.vstack([track[:2]] * 3), track[:2]) == pytest.approx(1.0, abs=1e-5)


def test_starts_and_ends_are_judged():
    energy = np.zeros(360)
    energy[200:] = -30.0  # much softer from 100 s on
    track = make_track(sections=(0.0, 64.0), energy=energy)
    assert [judge_start(track, t) for t in (64.05, 2.0, 2.5, 2.25)] == [1.0, 0.6, 0.3, 0.0]
    assert judge_end(track, 0.0, 64.0) == 1.0  # a section ends
    assert judge_end(track, 2.0, 18.0) == 1.0  # two phrases of four bars
    assert judge_end(track, 2.0, 20.0) == 0.5
    assert judge_end(track, 2.0, 20.7) == 0.0
    assert judge_end(track, 80.0, 100.0) == 1.0  # a fade
    assert judge_end(track, 150.0, 180.0) == 1.0  # its end


def test_cuts_on_beats_count_and_cuts_beside_them_do_not():
    cosines = np.zeros((5, 35))
    on = Pair(make_track(beat_s=0.6), make_video(cuts=np.arange(3, 27) * 0.6), cosines, PIECES)
    off = Pair(make_track(beat_s=0.6), make_video(cuts=np.arange(3, 27) * 0.6 + 0.3), cosines, PIECES)
    anywhere = Pair(
        make_track(beat_s=0.6), make_video(cuts=np.sort(np.random.default_rng(0).uniform(0, 30, 400))), cosines, PIECES
    )
    span = (0.0, 30.0)
    assert match_cuts(on, 0.0, span) == pytest.approx(1.0)
    assert match_cuts(off, 0.0, span) < 0
    assert match_cuts(off, 0.3, span) == pytest.approx(1.0)
    assert abs(match_cuts(anywhere, 0.0, span)) < 0.1
    assert match_cuts(Pair(make_track(beat_s=0), make_video(cuts=[1.0]), cosines, PIECES), 0.0, span) == 0.0


def test_energy_follows_motion():
    t = np.arange(360) / 2
    track = make_track(energy=-20 + 10 * np.sin(2 * np.pi * t / 16))
    video = make_video(motion=1 + np.sin(2 * np.pi * np.arange(60) / 2 / 16))
    pair = Pair(track, video, np.zeros((5, 35)), PIECES)
    assert correlate_energy(pair, 32.0, (0.0, 30.0)) > 0.95
    assert correlate_energy(pair, 40.0, (0.0, 30.0)) < -0.9
    assert correlate_energy(Pair(track, make_video(), pair.cosines, PIECES), 0.0, (0.0, 30.0)) == 0.0


def test_a_passage_begins_on_a_bar_line_and_says_why():
    video, track = plant(np.random.default_rng(8), 35, 5, 12)
    pair = Pair(make_track(), make_video(cuts=[4.0, 8.0]), video @ track.T, PIECES)
    first, second = choose_passages(pair, PassageParams(), top_k=2)
    assert first.start_s % 2.0 == 0.0
    assert abs(first.start_s - 60.0) <= PIECES.hop_s
    assert abs(second.start_s - first.start_s) >= 15.0
    told = json.loads(json.dumps(describe_passage(first)))
    assert told["end_s"] == told["start_s"] + 30.0
    weights = PassageParams()
    total = sum(getattr(weights, name) * value for name, value in told["terms"].items())
    assert told["score"] == pytest.approx(total, abs=1e-3)
    assert (told["video_start_s"], told["video_end_s"], told["repeats"]) == (0.0, 30.0, False)


def test_a_scene_gets_a_passage_of_its_length():
    video, track = plant(np.random.default_rng(9), 35, 5, 3)
    pair = Pair(make_track(), make_video(), video @ track.T, PIECES)
    (found,) = choose_passages(pair, ONLY_AGREEMENT, (10.0, 22.0))
    assert found.end_s - found.start_s == pytest.approx(12.0)
    assert abs(found.start_s - (15.0 + 10.0)) <= PIECES.hop_s


@pytest.mark.parametrize(("duration_s", "beat_s"), [(12.0, 0.5), (1.0, 0.5), (12.0, 0.0), (0.4, 0.0)])
def test_music_that_is_too_short_is_taken_from_its_beginning(duration_s, beat_s):
    pair = Pair(make_track(duration_s, beat_s=beat_s, sections=(0.0,)), make_video(), np.ones((5, 1)), PIECES)
    (found,) = choose_passages(pair, PassageParams())
    assert found.repeats
    assert (found.start_s, found.end_s) == (0.0, duration_s)
