"""`kedro recommend` on descriptors: from training to a table that says how likely an answer is and why it fits."""

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner

from descriptor_pairs import AUDIO, FINGERPRINTS, VIDEO, draw_pairs
from vmnet_pipeline import Embedder
from vmnet_pipeline.cli import cli
from vmnet_pipeline.commands.recommend import format_json, format_table, make_ranking
from vmnet_pipeline.features.store import FeatureChunk, FeatureResult, FeatureRow, FeatureStore
from vmnet_pipeline.models.checkpoints import save_checkpoint
from vmnet_pipeline.pairs.packing import PairFiles
from vmnet_pipeline.params import TrainParams
from vmnet_pipeline.pipelines.train.nodes import train_network
from vmnet_pipeline.search.index_files import save_index
from vmnet_pipeline.search.vector_index import VectorIndex
from vmnet_pipeline.types import CollectionPlaces

LIBRARY = draw_pairs(30, 9)
GROUPS = {item_id: f"song{place % 3}" for place, item_id in enumerate(LIBRARY.ids)}
LIBRARY.video[0, VIDEO.index("cuts")], LIBRARY.music[0, AUDIO.index("tempo")] = 2.0, 60.0


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    folder, drawn = tmp_path_factory.mktemp("project"), draw_pairs(600, 1)
    sizes = {"train": 500, "val": 99, "test": 1}
    pairs = PairFiles(drawn.ids, drawn.groups, drawn.music, drawn.video, sizes, fingerprints=FINGERPRINTS)
    model = {"music_tower": "canonical", "video_tower": "canonical", "embedding_dim": 8}
    params = TrainParams(epochs=2, batch_size=64, learning_rate=1e-4, device="cpu", n_threads=1, model=model)
    checkpoint, _ = train_network(pairs, folder / "state", params)
    save_checkpoint(folder / "checkpoint", checkpoint)
    embedder = Embedder(checkpoint)
    vectors = embedder([LIBRARY.music, None], pooled=True).music
    items = pd.DataFrame({"id": LIBRARY.ids, "title": [f"Track {i}" for i in LIBRARY.ids], "group": GROUPS.values()})
    about = {"checkpoint": embedder.digest, "calibration": checkpoint.calibration.model_dump()}
    save_index(folder / "output/music_index", VectorIndex.build(vectors, items, about=about))
    columns = [f"descriptors_audio:{name}" for name in AUDIO]
    words = pd.DataFrame(LIBRARY.music, columns=columns).assign(id=list(LIBRARY.ids))[["id", *columns]]
    words.to_parquet(folder / "output/music_words.parquet", index=False)
    results = [
        FeatureResult(FeatureRow(i, "done", "s"), row) for i, row in zip(LIBRARY.ids, LIBRARY.music, strict=True)
    ]
    store = FeatureStore(folder / "features/descriptors_audio")
    store.write(FeatureChunk(FINGERPRINTS["audio"], tuple(results)))
    return CollectionPlaces(
        folder / "output", folder / "checkpoint", folder / "none", folder, (folder,), folder / "features"
    )


@pytest.fixture(autouse=True)
def files(tmp_path, monkeypatch):
    """In the current folder; what they hold does not matter, as no test decodes."""
    monkeypatch.setenv("KEDRO_LOGGING_CONFIG", str(Path(__file__).parents[2] / "conf/logging.yml"))
    monkeypatch.chdir(tmp_path)
    for name in ("clip.mp4", "other.mp4", "song.mp3"):
        Path(name).write_bytes(b"ID3" if name == "song.mp3" else b"x")


def test_the_table_says_how_likely_an_answer_is_and_why_it_fits(places, monkeypatch):
    monkeypatch.setattr(Embedder, "extract", lambda *_, **__: LIBRARY.video[0])
    ranking = make_ranking(
        Path("clip.mp4"), "video", places, same_side=False, rerank=None, top_k=3, filters=(), exclude=()
    )
    table = format_table(ranking).splitlines()
    assert table[0].split() == ["rank", "score", "fit", "above", "id", "title", "group", "reasons"]
    assert ranking[0].id == "0" and ranking[0].fit > 0.2 and ranking[0].percentile > 95
    assert "both slow (tempo 60, cuts every 30.0 s)" in table[1]
    assert json.loads(format_json({"query": "clip.mp4"}, ranking))["results"][0]["reasons"]
    assert ranking.remark == ""


def test_without_stored_features_there_are_answers_without_reasons(places, monkeypatch):
    monkeypatch.setattr(Embedder, "extract", lambda *_, **__: LIBRARY.video[0])
    for features in (None, places.output):
        found = make_ranking(
            Path("clip.mp4"), "video", replace(places, features=features), same_side=False, rerank=None, top_k=3
        )
        assert [item.reasons for item in found] == ["", "", ""] and found[0].id == "0"
        assert "reasons" not in format_table(found)


@pytest.fixture
def call(places, monkeypatch):
    """Runs the command on this collection; every file is the first video of the library."""
    monkeypatch.setattr(Embedder, "extract", lambda *_, **__: LIBRARY.video[0])
    weights = Path(__file__).parents[2] / "data/06_models/weights"
    options = ["--index-dir", places.output, "--checkpoint", places.checkpoint, "--weights-dir", weights]

    def run(*arguments, code=0):
        done = CliRunner().invoke(cli, ["recommend", *map(str, (*arguments, *options))])
        assert done.exit_code == code, done.output
        return json.loads(done.stdout) if "--json" in arguments else " ".join(done.output.split())

    return run


@pytest.mark.parametrize("query", [("clip.mp4",), ("--text", "slow tempo"), ("clip.mp4", "--text", "slow")])
def test_one_answer_of_each_group(call, query):
    everything = [item["id"] for item in call(*query, "--top-k", 30, "--json")["results"]]
    best = list({GROUPS[item_id]: item_id for item_id in reversed(everything)}.values())
    found = [item["id"] for item in call(*query, "--one-per-group", "--top-k", 5, "--json")["results"]]
    assert found == sorted(best, key=everything.index)[:5]


TEMPO = dict(zip(LIBRARY.ids, LIBRARY.music[:, AUDIO.index("tempo")], strict=True))


def test_words_alone_find_music_without_a_network(call, monkeypatch):
    monkeypatch.setattr(Embedder, "load", None)
    found = call("--text", "slow tempo", "--top-k", 5, "--json")
    assert (found["query"], found["text"], found["direction"]) == (None, "slow tempo", "text_to_music")
    slow = [TEMPO[item["id"]] for item in found["results"]]
    fast = [TEMPO[item["id"]] for item in call("--text", "not slow", "--top-k", 5, "--json")["results"]]
    assert max(slow) < sum(TEMPO.values()) / len(TEMPO) < sum(fast) / len(fast)
    assert all(-1 < item["score"] < 1 for item in found["results"])
    table = call("--text", "slow, a database schema")
    assert "Track" in table and "Not understood, and left out: 'a database schema'" in table


def test_words_and_a_file_count_together_as_the_weight_says(call):
    by_file = call("clip.mp4", "--json")["results"]
    same = call("--video", "clip.mp4", "--text", "fast", "--text-weight", 0, "--json")
    assert [item["id"] for item in same["results"]] == [item["id"] for item in by_file]
    assert (same["query"], same["direction"]) == ("clip.mp4", "video_to_music")
    mixed = call("clip.mp4", "--text", "fast", "--text-weight", 1, "--json")["results"]
    assert TEMPO[mixed[0]["id"]] > TEMPO[by_file[0]["id"]] == 60
    assert {item["id"]: item["fit"] for item in mixed if item["fit"]}  # what the file says of it stays


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--text", ""], "the text says nothing to search for; write, for example, 'calm piano, no drums'"),
        (["--text", "\U0001f3b9"], "the text says nothing to search for"),
        (["--text", "x" * 10_000], "the text has 10000 characters; write at most 1000"),
        (["--text", "a database schema"], "the text is not understood"),
        (["clip.mp4", "--text", "a database schema"], "the text is not understood"),
        (["--text", "still", "--target", "video"], "there is nothing in"),
        (["--music", "a.ogg", "--text", "still"], "extract_descriptors_video"),
        (["--text", "fast", "--filter", "mood=sad"], "items have no 'mood' to filter by"),
    ],
)
def test_words_that_cannot_be_searched_say_what_to_do(call, arguments, message):
    assert message in call(*arguments, code=1)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["clip.mp4", "--music", "a.ogg"],
        ["clip.mp4", "--text", "fast", "--target", "music"],
        ["--text", "fast", "--same-side"],
        ["--text", "fast", "--rerank", 0.5],
        ["clip.mp4", "--text", "fast", "--rerank", 0.5],
        ["--text", "fast", "--text-weight", 1.5],
    ],
)
def test_wrong_combinations_of_options_are_refused(call, arguments):
    call(*arguments, code=2)


def test_several_files_are_ranked_by_one_network(call, monkeypatch):
    loaded, load = [], Embedder.load.__func__
    monkeypatch.setattr(Embedder, "load", classmethod(lambda kind, *a, **k: loaded.append(1) or load(kind, *a, **k)))
    found = call("clip.mp4", "other.mp4", "--top-k", 2, "--json")
    assert [answer["query"] for answer in found] == ["clip.mp4", "other.mp4"]
    assert [len(answer["results"]) for answer in found] == [2, 2]
    assert loaded == [1]
    assert found[0] == call("clip.mp4", "--top-k", 2, "--json")


def test_a_folder_means_its_files_and_a_bad_one_costs_no_other(call, monkeypatch, tmp_path):
    (tmp_path / "films").mkdir()
    for name in ("a.mp4", "b.mp4", "c.mp3"):
        (tmp_path / "films" / name).write_bytes(b"ID3" if name == "c.mp3" else b"x")
    monkeypatch.setattr("vmnet_pipeline.ingestion.probing.recognise_files", lambda paths, **_: set(paths))
    output = call("films", "--top-k", 1, code=1)
    assert "films/a.mp4 rank" in output and "films/b.mp4 rank" in output
    assert "c.mp3 is audio. To find videos for it: --music" in output
    assert "1 of 3 files cannot be used." in output
    (tmp_path / "empty").mkdir()
    assert "empty holds no media files" in call("empty", code=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["song.mp3"], "Error: song.mp3 is audio. To find videos for it: --music song.mp3"),
        (["gone.mp4"], "Error: There is no file gone.mp4, and no video of this id in the collection."),
        (
            ["--music", "gone.mp3", "--same-side"],
            "Error: There is no file gone.mp3, and no music of this id in the collection.",
        ),
        (["clip.mp4", "--filter", "colour=red"], "Error: items have no 'colour' to filter by"),
    ],
)
def test_what_cannot_be_asked_is_told_before_the_network_is_loaded(call, monkeypatch, arguments, message):
    monkeypatch.setattr(Embedder, "load", None)
    assert message in call(*arguments, code=1)


def test_an_item_is_asked_by_its_id_without_a_network(call, monkeypatch):
    alike = call("--music", "5", "--same-side", "--top-k", 4, "--json")["results"]
    assert len(alike) == 4 and "5" not in [item["id"] for item in alike]
    monkeypatch.setattr(Embedder, "load", None)
    assert call("--music", "5", "--same-side", "--top-k", 4, "--json")["results"] == alike
    assert "give the file instead of the id" in call("--music", "5", "--same-side", "--rerank", 0.5, code=1)


def test_the_last_line_says_what_to_do_next(call):
    assert call("clip.mp4").endswith("to see and hear them; kedro render VIDEO MUSIC, to keep one")
    assert "results" in call("clip.mp4", "--json")


def test_files_of_both_sides_are_a_wrong_call(call):
    assert "give either VIDEOs or --music FILE" in call("clip.mp4", "--music", "song.mp3", code=2)
    assert "give either VIDEOs" in call(code=2)
