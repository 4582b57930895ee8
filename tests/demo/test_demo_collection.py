"""The demo collection: real files, the same bytes every time, and a mood that shows on both sides."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import itertools
import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import av
import numpy as np
import pytest

from vmnet_pipeline.demo import DemoSpec, Mood, collection, make_clip, make_demo_collection, write_media
from vmnet_pipeline.demo.encode import ENCODINGS
from vmnet_pipeline.demo.frames import draw_scene_style, render_frames
from vmnet_pipeline.demo.mood import blur_mood, draw_mood
from vmnet_pipeline.demo.music import draw_song_style, render_music
from vmnet_pipeline.demo.titles import name_clip, number_titles
from vmnet_pipeline.errors import IngestError, ParameterError

TINY = DemoSpec(n_pairs=8, seed=5, min_duration_s=0.6, max_duration_s=0.9)
CLEAN = {"roughness": 0.0}  # no grain and no hiss, which would drown the other dimensions
SOUND_CASES = [
    (suffix, rate, channels)
    for suffix, encoding in ENCODINGS.items()
    for rate, channels in itertools.product(encoding.sample_rates_hz, encoding.channels)
]


def decode_sound(path: Path) -> tuple[np.ndarray, int]:
    """(n, channels) float and the sample rate."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        resampler = av.AudioResampler(format="fltp")
        blocks = [part.to_ndarray() for frame in container.decode(stream) for part in resampler.resample(frame)]
        return np.concatenate(blocks, axis=1).T, stream.rate


def decode_pictures(path: Path) -> tuple[np.ndarray, list[float]]:
    """(n, height, width, 3) uint8 and the times in seconds."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    return np.stack([frame.to_ndarray(format="rgb24") for frame in frames]), [float(frame.time) for frame in frames]


def hash_files(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def read_table(table: Path) -> list[dict[str, str]]:
    with table.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny finished collection; not to be changed."""
    folder = tmp_path_factory.mktemp("demo") / "tiny"
    make_demo_collection(folder, TINY, n_workers=1)
    return folder


# Single files


@pytest.mark.parametrize(("suffix", "rate", "channels"), SOUND_CASES)
def test_sound_survives_every_codec(tmp_path: Path, suffix: str, rate: int, channels: int) -> None:
    sound = 0.3 * np.sin(2 * np.pi * 440 * np.arange(2 * rate) / rate)[:, None].repeat(channels, 1)
    sound[:, -1] *= 0.5
    path = tmp_path / f"tone{suffix}"

    write_media(path, audio=sound.astype(np.float32), sample_rate_hz=rate)

    decoded, decoded_rate = decode_sound(path)
    assert decoded_rate == rate
    assert decoded.shape[1] == channels
    assert len(decoded) / rate == pytest.approx(2.0, abs=0.2)
    middle = decoded[rate // 2 : rate // 2 + rate]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(rate)[:, None], axis=0))
    assert np.all(np.abs(np.argmax(spectrum, axis=0) - 440) <= 1)
    wanted_rms = 0.3 / np.sqrt(2) * np.array([0.5] if channels == 1 else [1.0, 0.5])
    np.testing.assert_allclose(np.sqrt(np.mean(middle**2, axis=0)), wanted_rms, rtol=0.1)


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".mkv"])
@pytest.mark.parametrize("frame_rate_hz", [12, 25])
def test_pictures_survive_every_codec(tmp_path: Path, suffix: str, frame_rate_hz: int) -> None:
    colours = np.array([[200, 40, 40], [40, 200, 40], [40, 40, 200]], np.uint8)
    frames = [np.broadcast_to(colours[i // frame_rate_hz], (64, 96, 3)) for i in range(3 * frame_rate_hz)]
    path = tmp_path / f"colours{suffix}"

    write_media(path, frames=frames, size=(96, 64), frame_rate_hz=frame_rate_hz)

    pictures, times = decode_pictures(path)
    assert pictures.shape == (3 * frame_rate_hz, 64, 96, 3)
    np.testing.assert_allclose(times, np.arange(3 * frame_rate_hz) / frame_rate_hz, atol=2e-3)
    error = pictures.mean(axis=(1, 2)) - np.repeat(colours.astype(float), frame_rate_hz, axis=0)
    assert np.abs(error).max() < 20


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".mkv"])
def test_clip_sides_have_equal_lengths(tmp_path: Path, suffix: str) -> None:
    path = make_clip(tmp_path / f"clip{suffix}", seed=1, duration_s=3.0, width=96, height=64)

    sound, rate = decode_sound(path)
    pictures, times = decode_pictures(path)

    assert len(sound) / rate == pytest.approx(3.0, abs=0.2)
    assert times[-1] == pytest.approx(3.0 - 1 / 12, abs=0.01)
    assert len(pictures) == 36


@pytest.mark.parametrize(("with_audio", "with_video"), [(True, False), (False, True), (True, True)])
def test_clip_has_the_streams_asked_for(tmp_path: Path, with_audio: bool, with_video: bool) -> None:
    path = make_clip(
        tmp_path / "clip.mp4", duration_s=0.5, with_audio=with_audio, with_video=with_video, width=96, height=64
    )

    with av.open(str(path)) as container:
        assert (len(container.streams.audio), len(container.streams.video)) == (with_audio, with_video)


def test_files_carry_no_dates_and_no_versions(tmp_path: Path) -> None:
    for suffix in ENCODINGS:
        with av.open(str(make_clip(tmp_path / f"clip{suffix}", duration_s=0.5, width=96, height=64))) as container:
            tags = dict(container.metadata) | {k: v for s in container.streams for k, v in s.metadata.items()}
        assert "creation_time" not in {key.lower() for key in tags}, suffix
        assert not any(re.search(r"Lav[cf]\d", value) for value in tags.values()), suffix


@pytest.mark.parametrize("suffix", list(ENCODINGS))
def test_equal_arguments_give_equal_bytes(tmp_path: Path, suffix: str) -> None:
    make = {name: tmp_path / name / f"clip{suffix}" for name in ("first", "second", "other")}
    for name, path in make.items():
        make_clip(path, mood=Mood(energy=0.9), seed=9 if name == "other" else 8, duration_s=0.8, width=96, height=64)

    assert make["first"].read_bytes() == make["second"].read_bytes()
    assert make["first"].read_bytes() != make["other"].read_bytes()


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("a.avi", {}, "suffixes"),
        ("a.mp3", {"with_video": True}, "audio only"),
        ("a.webm", {"sample_rate_hz": 44_100}, "48000"),
        ("a.ogg", {"channels": 1}, "2 channels"),
        ("a.mp4", {"width": 95}, "even"),
        ("a.wav", {"with_audio": False}, "no stream"),
        ("a.wav", {"duration_s": 0.0}, "positive"),
    ],
)
def test_clip_refuses_what_cannot_be_written(tmp_path: Path, name: str, arguments: dict, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        make_clip(tmp_path / name, **{"duration_s": 0.5, "height": 64, "width": 96} | arguments)
    assert not list(tmp_path.iterdir())


def test_failed_write_leaves_no_file(tmp_path: Path) -> None:
    def break_off():
        yield from [np.zeros((64, 96, 3), np.uint8)] * 60  # enough for the first bytes to be written
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        write_media(tmp_path / "a.mp4", frames=break_off(), size=(96, 64))
    assert not list(tmp_path.iterdir())


# Moods


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_mood_outside_its_range_is_refused(value: float) -> None:
    with pytest.raises(ParameterError, match="energy"):
        Mood(energy=value)


def test_blurred_mood_stays_in_range_and_near() -> None:
    rng = np.random.default_rng(0)
    for _ in range(100):
        mood = draw_mood(rng)
        assert blur_mood(mood, rng, 0.0) == mood
        blurred = blur_mood(mood, rng, 0.05)
        assert blurred != mood
        assert abs(blurred.energy - mood.energy) < 0.3
    blur_mood(mood, rng, 1.0)  # must not leave [0, 1], which Mood would refuse


def play(mood: Mood, seed: int, duration_s: float = 4.0) -> np.ndarray:
    """(n,) mono at 22.05 kHz."""
    song_rng, sound_rng = np.random.default_rng(seed).spawn(2)
    return render_music(draw_song_style(mood, song_rng), sound_rng, duration_s, 22_050, 1)[:, 0]


def film(mood: Mood, seed: int, duration_s: float = 2.0) -> np.ndarray:
    """(n, 90, 160, 3) float."""
    scene_rng, picture_rng = np.random.default_rng(seed).spawn(2)
    frames = render_frames(draw_scene_style(mood, 120.0, scene_rng), picture_rng, duration_s, 160, 90, 12)
    return np.stack(list(frames)).astype(float)


def find_spectrum(sound: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Magnitudes (frames, bins) and the bins' frequencies in Hz."""
    frames = np.lib.stride_tricks.sliding_window_view(sound, 1024)[::512] * np.hanning(1024)
    return np.abs(np.fft.rfft(frames, axis=1)), np.fft.rfftfreq(1024, 1 / 22_050)


def measure_centroid(sound: np.ndarray) -> float:
    magnitudes, frequencies = find_spectrum(sound)
    return float((magnitudes @ frequencies).sum() / magnitudes.sum())


def measure_flatness(sound: np.ndarray) -> float:
    power = find_spectrum(sound)[0] ** 2 + 1e-9
    return float(np.mean(np.exp(np.log(power).mean(axis=1)) / power.mean(axis=1)))


def measure_onsets(sound: np.ndarray) -> float:
    """Rise of the loudness from frame to frame, relative to the mean loudness."""
    loudness = np.sqrt(np.mean(np.lib.stride_tricks.sliding_window_view(sound, 512)[::256] ** 2, axis=1))
    return float(np.clip(np.diff(loudness), 0, None).mean() / loudness.mean())


def measure_rms(sound: np.ndarray) -> float:
    return float(np.sqrt(np.mean(sound**2)))


def measure_motion(frames: np.ndarray) -> float:
    return float(np.abs(np.diff(frames, axis=0)).mean())


def measure_edges(frames: np.ndarray) -> float:
    return float(np.abs(np.diff(frames[0], axis=1)).mean())


def measure_warmth(frames: np.ndarray) -> float:
    return float(frames[..., 0].mean() - frames[..., 2].mean())


@pytest.mark.parametrize(
    ("dimension", "measure"),
    [
        ("energy", measure_rms),
        ("energy", measure_onsets),
        ("brightness", measure_centroid),
        ("roughness", measure_flatness),
    ],
)
def test_mood_is_heard(dimension: str, measure) -> None:
    values = [[measure(play(Mood(**CLEAN | {dimension: level}), seed)) for seed in range(4)] for level in (0.1, 0.9)]
    assert np.mean(values[1]) > 1.25 * np.mean(values[0])


def test_density_is_heard_as_more_notes() -> None:
    plucked = {"energy": 0.1, "valence": 1.0, "roughness": 0.0}  # no drums, short notes: only the notes are onsets
    values = [[measure_onsets(play(Mood(**plucked, density=d), seed)) for seed in range(4)] for d in (0.1, 0.9)]
    assert np.mean(values[1]) > 1.25 * np.mean(values[0])


@pytest.mark.parametrize(
    ("dimension", "measure"),
    [
        ("energy", measure_motion),
        ("energy", measure_edges),
        ("valence", measure_warmth),
        ("brightness", np.mean),
        ("density", measure_edges),
        ("roughness", measure_edges),
    ],
)
def test_mood_is_seen(dimension: str, measure) -> None:
    values = [
        [measure(film(Mood(**CLEAN | {dimension: level}), seed, 0.5)) for seed in range(4)] for level in (0.1, 0.9)
    ]
    assert min(values[1]) > max(values[0])


def test_valence_chooses_mode_and_articulation() -> None:
    dark, happy = (draw_song_style(Mood(valence=v), np.random.default_rng(0)) for v in (0.1, 0.9))
    assert 3 in dark.scale and 4 not in dark.scale
    assert 4 in happy.scale and 3 not in happy.scale
    assert dark.pluck < 0.4 < happy.pluck


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("channels", [1, 2])
def test_sound_is_finite_and_does_not_clip(seed: int, channels: int) -> None:
    rng = np.random.default_rng(seed)
    song = draw_song_style(draw_mood(rng), rng)
    sound = render_music(song, rng, 2.5, 44_100, channels)

    assert sound.shape == (110_250, channels)
    assert sound.dtype == np.float32
    assert np.isfinite(sound).all()
    assert np.abs(sound).max() <= 0.97
    assert np.sqrt(np.mean(sound**2)) > 0.01
    assert sound[0].max() == sound[-1].max() == 0.0


@pytest.mark.parametrize("corner", itertools.product((0.0, 1.0), repeat=5))
def test_every_corner_of_the_mood_space_renders(corner: tuple[float, ...]) -> None:
    mood = Mood(*corner)
    assert np.isfinite(play(mood, 0, 0.3)).all()
    frames = film(mood, 0, 0.2)
    assert frames.shape == (2, 90, 160, 3)
    assert frames[0].std() > 1.0


def test_loudest_sound_is_held_below_full_scale() -> None:
    loud = Mood(energy=1.0, valence=1.0, brightness=0.0, density=0.0, roughness=0.0)
    style = dataclasses.replace(draw_song_style(loud, np.random.default_rng(0)), rms=0.5, drive=0.5)
    sound = render_music(style, np.random.default_rng(0), 3.0, 16_000, 1)
    assert 0.8 < np.abs(sound).max() <= 0.97


# The collection


@pytest.mark.process
def test_bytes_depend_neither_on_workers_nor_on_order(tiny: Path, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []

    make_demo_collection(tmp_path / "pool", TINY, n_workers=2, progress=lambda *call: calls.append(call))

    assert hash_files(tmp_path / "pool") == hash_files(tiny)
    assert calls == [(done, 8) for done in range(1, 9)]


def test_another_seed_gives_other_files(tiny: Path, tmp_path: Path) -> None:
    other = DemoSpec(n_pairs=2, seed=6, min_duration_s=0.6, max_duration_s=0.9)
    make_demo_collection(tmp_path / "other", other, n_workers=1)
    assert not set(hash_files(tmp_path / "other" / "video").values()) & set(hash_files(tiny / "video").values())


def test_table_names_real_files(tiny: Path) -> None:
    rows = read_table(tiny / "media.csv")

    assert list(rows[0]) == ["id", "video", "audio", "group", "title"]
    assert [row["id"] for row in rows] == [f"{number:04d}" for number in range(1, 9)]
    named = {row[side] for row in rows for side in ("video", "audio")} - {""}
    assert len({row["title"] for row in rows}) == len(rows)
    there = {str(path.relative_to(tiny)) for path in tiny.glob("*/*")}
    assert named == there
    assert {path.name for path in tiny.iterdir()} == {"audio", "video", "media.csv", "demo.json"}


def test_sound_is_in_the_video_or_beside_it(tiny: Path) -> None:
    for row in read_table(tiny / "media.csv"):
        with av.open(str(tiny / row["video"])) as container:
            assert len(container.streams.video) == 1
            assert len(container.streams.audio) == (0 if row["audio"] else 1)
        pictures, _ = decode_pictures(tiny / row["video"])
        sound, rate = decode_sound(tiny / (row["audio"] or row["video"]))
        assert 0.4 <= len(sound) / rate <= 1.1
        assert len(pictures) >= 7


def test_default_plan_is_as_promised() -> None:
    pairs = collection._plan_pairs(DemoSpec())
    sizes = Counter(pair.group for pair in pairs)
    containers = Counter(Path(pair.video).suffix for pair in pairs if not pair.audio)
    sounds = Counter(Path(pair.audio).suffix for pair in pairs if pair.audio)

    assert len(pairs) == 200
    assert set(sizes.values()) == {1, 2, 3}
    assert len(sizes) >= 80
    assert set(containers) == {".mp4", ".webm", ".mkv"}
    assert set(sounds) == {".mp3", ".ogg", ".flac", ".wav"}
    assert sum(sounds.values()) == 50
    assert {pair.sample_rate_hz for pair in pairs} == {16_000, 22_050, 32_000, 44_100, 48_000}
    assert {pair.channels for pair in pairs} == {1, 2}
    assert all(10.0 <= pair.duration_s <= 15.0 for pair in pairs)
    # A quarter of the groups, at the worst the smallest ones that make it up, still gives a test set worth the name.
    shuffled = np.random.default_rng(0).permutation(list(sizes))
    assert sum(sizes[group] for group in shuffled[: round(0.25 * len(sizes))]) >= 40


def test_group_shares_song_and_scene_but_not_the_segment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    songs, scenes, sounds = [], [], []
    monkeypatch.setattr(
        collection, "render_music", lambda song, *rest: (songs.append(song), sounds.append(render_music(song, *rest)))
    )
    monkeypatch.setattr(collection, "render_frames", lambda scene, *rest: scenes.append(scene))
    monkeypatch.setattr(collection, "write_media", lambda *_, **__: None)
    pairs = collection._plan_pairs(TINY)
    for pair in pairs:
        collection._render_pair(pair, tmp_path)

    assert 1 < len({pair.group for pair in pairs}) < len(pairs)
    for a, b in itertools.combinations(range(len(pairs)), 2):
        same_group = pairs[a].group == pairs[b].group
        assert (songs[a] == songs[b]) is same_group
        assert (scenes[a] == scenes[b]) is same_group
        assert not np.array_equal(sounds[a], sounds[b])


def test_finished_collection_is_left_alone(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path: path.stat().st_mtime_ns for path in tiny.rglob("*")}
    monkeypatch.setattr(collection, "_render_pairs", lambda *_: pytest.fail("nothing is to be rendered"))

    assert make_demo_collection(tiny, TINY) == tiny / "media.csv"
    assert {path: path.stat().st_mtime_ns for path in tiny.rglob("*")} == before


def test_a_finished_collection_without_titles_gets_them_and_nothing_else(tiny: Path) -> None:
    table, before = (tiny / "media.csv").read_text(), hash_files(tiny)
    old = re.sub(r',(title|"[^"\n]*")$', "", table, flags=re.MULTILINE)
    assert old.splitlines()[0] == "id,video,audio,group"
    (tiny / "media.csv").write_text(old)
    make_demo_collection(tiny, TINY)
    assert hash_files(tiny) == before


def test_titles_say_tempo_colour_and_lead() -> None:
    titles = [name_clip(*collection._draw_styles(pair)) for pair in collection._plan_pairs(DemoSpec())]
    words = [set(column) for column in zip(*(re.split(", | ", title, maxsplit=2) for title in titles), strict=True)]
    assert words[0] == {"Slow", "Steady", "Fast"}
    assert words[1] >= {"blue", "teal", "green", "orange"}
    assert words[2] >= {"piano", "drums", "harp", "strings", "distorted guitar"}
    assert number_titles(["a", "b", "a", "a"]) == ["a", "b", "a 2", "a 3"]


def test_interrupted_collection_goes_on(tiny: Path, tmp_path: Path) -> None:
    folder = tmp_path / "demo"

    def interrupt(done: int, _: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_demo_collection(folder, TINY, n_workers=1, progress=interrupt)
    assert not (folder / "demo.json").exists()
    assert not (folder / "media.csv").exists()
    (folder / "video" / ".tmp-0004.mp4").write_bytes(b"half")
    made = {path: path.stat().st_mtime_ns for path in folder.glob("*/0*")}
    calls: list[tuple[int, int]] = []

    make_demo_collection(folder, TINY, n_workers=1, progress=lambda *call: calls.append(call))

    assert calls == [(done, 8) for done in range(4, 9)]
    assert {path: path.stat().st_mtime_ns for path in made} == made
    assert hash_files(folder) == hash_files(tiny)


def test_lost_and_cut_files_are_made_again(tiny: Path, tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    make_demo_collection(folder, TINY, n_workers=1)
    videos = sorted((folder / "video").iterdir())
    videos[0].unlink()
    videos[1].write_bytes(videos[1].read_bytes()[:100])

    make_demo_collection(folder, TINY, n_workers=1)

    assert hash_files(folder) == hash_files(tiny)


def test_foreign_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "holiday.mp4").write_bytes(b"precious")

    with pytest.raises(IngestError, match=r"other files than a demo collection.*empty or new folder") as caught:
        make_demo_collection(tmp_path, TINY, n_workers=1)

    assert str(tmp_path) in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.mp4"]


@pytest.mark.parametrize("marker", ["demo.json", "demo.unfinished.json"])
@pytest.mark.parametrize("change", ["spec", "recipe", "damage", "foreign"])
def test_demo_of_another_specification_is_refused(tmp_path: Path, marker: str, change: str) -> None:
    record = collection._describe_spec(TINY)
    if change == "spec":
        record["spec"]["seed"] += 1
    if change == "recipe":
        record["recipe"] += 1
    texts = {"damage": "{", "foreign": "[1, 2]"}
    (tmp_path / marker).write_text(texts.get(change, json.dumps(record)))

    with pytest.raises(IngestError, match="demo collection"):
        make_demo_collection(tmp_path, TINY, n_workers=1)
    assert [path.name for path in tmp_path.iterdir()] == [marker]


def test_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "demo").write_text("")
    with pytest.raises(IngestError, match="is a file"):
        make_demo_collection(tmp_path / "demo", TINY)


@pytest.mark.parametrize(
    "arguments",
    [{"n_pairs": 0}, {"seed": -1}, {"min_duration_s": 0.0}, {"max_duration_s": 5.0}, {"mood_noise": -0.1}],
)
def test_impossible_specification_is_refused(arguments: dict) -> None:
    with pytest.raises(ParameterError, match=next(iter(arguments))):
        DemoSpec(**arguments)


@pytest.mark.process
def test_script_without_main_guard_still_gets_its_demo(tmp_path: Path, tiny: Path) -> None:
    source = Path(collection.__file__).parents[2]
    script = (
        "import sys, pathlib; sys.path.insert(0, sys.argv[1])\n"
        "from vmnet_pipeline.demo import DemoSpec, make_demo_collection\n"
        "spec = DemoSpec(n_pairs=8, seed=5, min_duration_s=0.6, max_duration_s=0.9)\n"
        "make_demo_collection(pathlib.Path(sys.argv[2]), spec, n_workers=2)\n"
    )
    command = [sys.executable, "-W", "ignore", "-", str(source), str(tmp_path / "demo")]
    # The C library fills fresh memory with a pattern, which an encoder that reads what it never wrote would show.
    environment = os.environ | {"MALLOC_PERTURB_": "85"}
    subprocess.run(command, input=script, text=True, check=True, timeout=120, capture_output=True, env=environment)
    assert hash_files(tmp_path / "demo") == hash_files(tiny)
