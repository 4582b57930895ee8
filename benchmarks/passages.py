"""Passages: beats, bars, sections and cuts where they are known; planted passages; cost of whole files.

    python benchmarks/passages.py                     # everything but cost
    python benchmarks/passages.py --only cost --minutes 10
    python benchmarks/passages.py --only beats planted --json passages.json

- `beats`: click tracks of known tempo and meter, with noise; F-measure of mir_eval (70 ms) of beats and bar lines. The
  control compares with beats moved by half a beat.
- `sections`: songs of sections of 8 bars, each on a chord of its own; F-measure of mir_eval within 0.5 s and 3 s. The
  control has as many random boundaries.
- `cuts`: moving pictures with known cuts; F-measure within a frame and a half. The control is another video's cuts.
- `planted`: excerpts of 30 s, softer and with noise, of tracks of 5 minutes made of demo songs, embedded piece by piece
  with a network that standardises descriptors and projects them at random; how often the start is found within one
  piece. Controls: the start of another excerpt, and pieces of the track in random order. This measures the pieces and
  the search for a passage, not how well a network matches music and video.
- `cost`: processor seconds and peak memory per hour of media, with all child processes.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import mir_eval
import numpy as np
import torch

from vmnet_pipeline.backends.registry import get_backend
from vmnet_pipeline.backends.whole_file import WholeFileBackend
from vmnet_pipeline.demo.clip import make_clip
from vmnet_pipeline.inference.embedder import Embedder
from vmnet_pipeline.inference.libraries import embed_whole_file
from vmnet_pipeline.media.audio import decode_audio
from vmnet_pipeline.media.sandbox import Sandbox
from vmnet_pipeline.models.checkpoints import Checkpoint
from vmnet_pipeline.models.factory import build_model
from vmnet_pipeline.params import LimitParams, PassageParams, PieceParams
from vmnet_pipeline.passages.scoring import Pair, choose_passages
from vmnet_pipeline.passages.tracks import find_structure, follow_track
from vmnet_pipeline.passages.videos import VideoStructure, follow_video

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "passages"))
from made_media import RATE_HZ, render_clicks, render_song, write_shots, write_wave

CONFIG = {
    "music_tower": "musicnn", "video_tower": "musicnn", "music_shape": [47], "video_shape": [31],
    "embedding_dim": 64, "dropout": 0.0, "standardise": True,
}  # fmt: skip


def measure_beats(folder: Path, rng: np.random.Generator) -> list[dict[str, Any]]:
    rows = []
    for bpm in (70.0, 84.0, 100.0, 112.0, 128.0, 140.0, 160.0):
        for meter in (4, 3):
            samples, beats = render_clicks(bpm, 60.0, meter=meter)
            path = write_wave(folder / "clicks.wav", samples + 0.003 * rng.standard_normal(len(samples)))
            found = find_structure(follow_track(path))
            score = mir_eval.beat.f_measure
            rows.append(
                {
                    "bpm": bpm,
                    "meter": meter,
                    "beats": score(beats, found.beats_s),
                    "bars": score(beats[::meter], found.bars_s),
                    "beats_control": score(beats + 30 / bpm, found.beats_s),
                }
            )
    return rows


def measure_sections(folder: Path, rng: np.random.Generator) -> list[dict[str, Any]]:
    rows = []
    for number in range(8):
        bpm = float(rng.integers(90, 140))
        chords = [tuple(rng.choice(np.arange(200, 1200, 7), 3, replace=False).astype(float)) for _ in range(6)]
        path = write_wave(folder / "song.wav", render_song(bpm, chords, 8))
        found = find_structure(follow_track(path))
        true = np.arange(7) * 8 * 4 * 60 / bpm
        guess = np.unique(np.r_[0.0, found.sections_s, true[-1]])
        chance = np.unique(np.r_[0.0, rng.uniform(0, true[-1], len(guess) - 2), true[-1]])
        row: dict[str, Any] = {"song": number, "n_found": len(found.sections_s)}
        for width in (0.5, 3.0):
            for name, times in (("", guess), ("_control", chance)):
                spans = [np.column_stack([edges[:-1], edges[1:]]) for edges in (true, times)]
                row[f"f_{width}{name}"] = mir_eval.segment.detection(*spans, window=width, trim=True)[2]
        rows.append(row)
    return rows


def measure_cuts(folder: Path, rng: np.random.Generator) -> list[dict[str, Any]]:
    rows, before = [], np.array([1.0])
    for number in range(6):
        cuts = np.round(np.cumsum(rng.uniform(0.8, 4.0, 8)) * 25) / 25
        path = write_shots(folder / "shots.mp4", cuts.tolist(), float(cuts[-1] + 2), moving=bool(number % 2))
        found = follow_video(path).cuts_s
        score = mir_eval.onset.f_measure
        rows.append(
            {
                "video": number,
                "cuts": score(cuts, found, window=0.06)[0],
                "control": score(before, found, window=0.06)[0],
            }
        )
        before = cuts
    return rows


def make_network(pieces: np.ndarray) -> Checkpoint:
    """A network that standardises descriptors as those of some pieces ask for, and projects them at random."""
    torch.manual_seed(0)
    state = {name: tensor.clone() for name, tensor in build_model(**CONFIG).state_dict().items()}
    state["music_scaler.mean"] = torch.from_numpy(pieces.mean(axis=0).astype(np.float32))
    state["music_scaler.std"] = torch.from_numpy(np.maximum(pieces.std(axis=0), 1e-6).astype(np.float32))
    backends = [get_backend(f"descriptors_{side}") for side in ("audio", "video")]
    return Checkpoint(CONFIG, state, {backend.modality: backend.fingerprint() for backend in backends})


def make_long_tracks(folder: Path, n_tracks: int, n_songs: int) -> list[np.ndarray]:
    tracks = []
    for number in range(n_tracks):
        songs = []
        for k in range(n_songs):
            clip = make_clip(folder / "song.wav", seed=1000 * number + k, duration_s=25.0, channels=1)
            songs.append(decode_audio(clip, sample_rate_hz=RATE_HZ))
        tracks.append(np.concatenate(songs))
    return tracks


def measure_planted(folder: Path, rng: np.random.Generator) -> dict[str, Any]:
    params, only = PieceParams(), PassageParams(start=0, end=0, energy=0, cuts=0)
    tracks = make_long_tracks(folder, 4, 12)
    paths = [write_wave(folder / f"track{k}.wav", samples) for k, samples in enumerate(tracks)]
    backend = WholeFileBackend(get_backend("descriptors_audio"), params)
    backend.load()
    network = make_network(np.concatenate([backend.read(path).inputs for path in paths]))
    embedder = Embedder(network)
    found: dict[str, list[float]] = {"planted": [], "other start": [], "shuffled pieces": []}
    for path, samples in zip(paths, tracks, strict=True):
        own = embed_whole_file(embedder, "music", path, params)
        structure = find_structure(follow_track(path))
        for _ in range(10):
            start_s, other_s = rng.uniform(0, len(samples) / RATE_HZ - 30, 2)
            part = samples[round(start_s * RATE_HZ) :][: 30 * RATE_HZ]
            noisy = 0.5 * part + 0.003 * rng.standard_normal(len(part))
            query = embed_whole_file(embedder, "music", write_wave(folder / "part.wav", noisy), params)
            video = VideoStructure(30.0, np.empty(0), np.zeros(60))
            for name, rows, true_s in (
                ("planted", own, start_s),
                ("other start", own, other_s),
                ("shuffled pieces", rng.permutation(own), start_s),
            ):
                (passage,) = choose_passages(Pair(structure, video, query @ rows.T, params), only)
                found[name].append(abs(passage.start_s - true_s))
    errors = {name: np.array(values) for name, values in found.items()}
    return {
        name: {"within_one_piece": float((own <= params.hop_s).mean()), "median_error_s": float(np.median(own))}
        for name, own in errors.items()
    }


def count_processor_s() -> float:
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(sum(resource.getrusage(kind)[:2]) for kind in kinds)


def measure_cost(folder: Path, minutes: float) -> list[dict[str, Any]]:
    audio = write_wave(folder / "long.wav", np.tile(make_long_tracks(folder, 1, 4)[0], 1 + int(minutes * 60 // 100)))
    length_s = len(decode_audio(audio, sample_rate_hz=8000)) / 8000
    video = make_clip(folder / "film.mp4", duration_s=60.0 * min(minutes, 2.0), width=640, height=360, frame_rate_hz=25)
    video_s = 60.0 * min(minutes, 2.0)
    jobs: list[tuple[str, str, float, Any]] = [("beats, bars, sections", audio, length_s, follow_track)]
    jobs.append(("cuts, motion", str(video), video_s, follow_video))
    for name, path, seconds in (
        ("descriptors_audio", audio, length_s), ("musicnn", audio, length_s), ("vggish", audio, length_s),
        ("descriptors_video", str(video), video_s), ("efficientnet", str(video), video_s),
    ):  # fmt: skip
        backend = WholeFileBackend(get_backend(name, {"weights": "random"}), PieceParams())
        backend.load()
        jobs.append((name, path, seconds, backend.read))
    rows = []
    for name, path, seconds, read in jobs:
        started, wall = count_processor_s(), time.perf_counter()
        with Sandbox(LimitParams.model_validate({})) as sandbox:
            result = read(path, sandbox)
        used = count_processor_s() - started
        stored = getattr(result, "inputs", np.empty(0)).nbytes
        rows.append(
            {
                "what": name,
                "processor_s_per_hour": used * 3600 / seconds,
                "wall_s_per_hour": (time.perf_counter() - wall) * 3600 / seconds,
                "stored_mb_per_hour": stored * 3600 / seconds / 1e6,
                "peak_child_mb": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024,
            }
        )
    return rows


MEASURES = {"beats": measure_beats, "sections": measure_sections, "cuts": measure_cuts, "planted": measure_planted}


def average(rows: list[dict[str, Any]]) -> dict[str, float]:
    names = [name for name in rows[0] if isinstance(rows[0][name], float) and name != "bpm"]
    return {name: float(np.mean([row[name] for row in rows])) for name in names}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=[*MEASURES, "cost"], default=[*MEASURES])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for kind in options.only:
            if kind == "cost":
                results[kind] = measure_cost(folder, options.minutes)
            else:
                found = MEASURES[kind](folder, np.random.default_rng(0))
                results[kind] = {"rows": found, "mean": average(found)} if isinstance(found, list) else found
            print(kind, json.dumps(results[kind], indent=1))
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
