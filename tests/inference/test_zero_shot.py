"""Networks without training: one space, two spaces that share text, and what has none."""

import json
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch

from toy_spaces import ToyAudio, ToyPlain, ToyVideo, ToyVideoOfOneSpace, draw_pairs
from vmnet_pipeline.errors import ParameterError
from vmnet_pipeline.evaluation.ranks import rank_both
from vmnet_pipeline.inference.zero_shot import find_zero_shot, make_zero_shot, read_anchors
from vmnet_pipeline.models.checkpoints import StartPoint, build_from_checkpoint, load_checkpoint, save_checkpoint
from vmnet_pipeline.models.embed import embed_arrays
from vmnet_pipeline.params import TrainParams
from vmnet_pipeline.training.ensembles import train_ensemble
from vmnet_pipeline.types import Fingerprint


class Silent:
    def add(self, record):
        pass

    def finish(self, history):
        pass


@contextmanager
def open_log(number, name, params):
    yield Silent()


def make(*kinds):
    music, video = (kind({}, weights_dir=".") for kind in kinds)
    return make_zero_shot({"music": music, "video": video})


def measure_mrr(checkpoint, pairs):
    """Over topics: a pair of the same topic is right."""
    network = build_from_checkpoint(checkpoint)
    music, video = embed_arrays(network, music=pairs.music), embed_arrays(network, video=pairs.video)
    codes = np.unique(pairs.groups, return_inverse=True)[1]
    return float(np.mean([(1.0 / side.ranks).mean() for side in rank_both(music, video, codes, codes)]))


def test_towers_of_one_space_are_the_identity():
    checkpoint = make(ToyAudio, ToyVideoOfOneSpace)
    pairs = draw_pairs(ToyVideoOfOneSpace, 30, 5)
    network = build_from_checkpoint(checkpoint)
    found = embed_arrays(network, music=pairs.music)
    np.testing.assert_allclose(found, pairs.music / np.linalg.norm(pairs.music, axis=1, keepdims=True), atol=1e-6)
    over_time = network.embed_music(torch.from_numpy(np.stack([pairs.music, 3 * pairs.music], axis=1)))
    np.testing.assert_allclose(over_time.numpy(force=True), found, atol=1e-6)  # rows count alike, however long
    assert checkpoint.model_config["embedding_dim"] == pairs.music.shape[1]
    assert checkpoint.params["zero_shot"]["anchors"] == []
    assert measure_mrr(checkpoint, pairs) > 0.9


def test_two_spaces_are_joined_by_what_both_say_of_texts():
    checkpoint = make(ToyAudio, ToyVideo)
    pairs = draw_pairs(ToyVideo, 200, 6)
    assert checkpoint.model_config["embedding_dim"] == len(read_anchors()) > 100
    mixed = draw_pairs(ToyVideo, 200, 6)
    rng = np.random.default_rng(0)
    chance = measure_mrr(checkpoint, type(mixed)(mixed.ids, mixed.groups, mixed.music, rng.permutation(mixed.video)))
    assert measure_mrr(checkpoint, pairs) > 0.6 > 2.5 * chance


def test_the_network_is_saved_and_says_what_it_is_of(tmp_path):
    save_checkpoint(tmp_path, make(ToyAudio, ToyVideo))
    found = load_checkpoint(tmp_path)
    assert {name: item.backend for name, item in found.fingerprints.items()} == {
        "audio": "toy_audio",
        "video": "toy_video",
    }
    assert found.params["zero_shot"]["spaces"] == {"music": "toy-clap", "video": "toy-clip"}
    assert found.params["zero_shot"]["anchors"] == list(read_anchors())


def test_backends_without_a_space_are_refused():
    with pytest.raises(ParameterError, match="'toy_plain' of video has no space that it shares with text"):
        make(ToyAudio, ToyPlain)


def test_texts_that_a_backend_cannot_embed_are_told(monkeypatch):
    monkeypatch.setattr(ToyVideo, "embed_text", lambda self, texts: np.full((len(texts), 4), np.nan))
    with pytest.raises(ParameterError, match=r"'toy_video' embeds 132 texts as .* not as finite numbers"):
        make(ToyAudio, ToyVideo)


@pytest.mark.parametrize("content", ["a: 1", "- x", "- x\n- x", "- 1\n- 2", "[", "- ' '\n- y"])
def test_anchors_are_a_list_of_different_texts(content, tmp_path, monkeypatch):
    (tmp_path / "conf/base").mkdir(parents=True)
    (tmp_path / "conf/base/anchors.yml").write_text(content)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ParameterError, match=r"anchors\.yml"):
        read_anchors()


@pytest.mark.parametrize("protocol", ["default", "best"])
def test_training_starts_there_and_is_never_worse_on_validation_pairs(protocol, tmp_path):
    start = make(ToyAudio, ToyVideo)
    train, val = draw_pairs(ToyVideo, 64, 7), draw_pairs(ToyVideo, 64, 8)
    for rate, folder in ((1e-3, "gentle"), (10.0, "ruinous")):
        settings = {"protocol": protocol, "start_from": "x", "epochs": 2, "learning_rate": rate, "batch_size": 32}
        params = TrainParams(device="cpu", n_threads=1, positives_by="group", **settings)
        result = train_ensemble(
            train, val, params, state_dir=tmp_path / protocol / folder, open_log=open_log, start=StartPoint(start)
        ).network
        kept = replace(start, tensors=result.tensors, model_config=result.model_config)
        assert measure_mrr(kept, val) >= measure_mrr(start, val) - 1e-9, folder


def test_features_tell_whether_there_is_a_network_without_training(monkeypatch, tmp_path, caplog):
    from vmnet_pipeline.backends import registry

    places = {kind.name: f"toy_spaces:{kind.__name__}" for kind in (ToyAudio, ToyVideo, ToyPlain)}
    monkeypatch.setattr(registry, "_DECLARED", places)
    audio, video = Fingerprint("toy_audio"), Fingerprint("toy_video")
    found = find_zero_shot({"audio": audio, "video": video}, tmp_path)
    assert json.dumps(found.model_config) == json.dumps(make(ToyAudio, ToyVideo).model_config)
    assert find_zero_shot({"audio": audio, "video": Fingerprint("toy_plain")}, tmp_path) is None
    assert (
        find_zero_shot({"audio": audio, "video": Fingerprint.join([video, Fingerprint("toy_plain")])}, tmp_path) is None
    )
    assert find_zero_shot({"audio": audio}, tmp_path) is None and find_zero_shot({}, tmp_path) is None
    assert caplog.text == ""
    assert find_zero_shot({"audio": audio, "video": Fingerprint("unknown")}, tmp_path) is None
    assert "there is no row zero-shot" in caplog.text


def test_texts_are_embedded_like_items_also_for_the_service(monkeypatch, tmp_path):
    from vmnet_pipeline import Embedder
    from vmnet_pipeline.backends import registry
    from vmnet_pipeline.inference.text_space import embed_texts, embeds_texts, projects_texts
    from vmnet_pipeline.serving.worker import Task, _answer

    monkeypatch.setattr(
        registry, "_DECLARED", {kind.name: f"toy_spaces:{kind.__name__}" for kind in (ToyAudio, ToyVideo)}
    )
    save_checkpoint(tmp_path, make(ToyAudio, ToyVideo))
    embedder = Embedder.load(tmp_path)
    assert projects_texts(tmp_path, "music") and embeds_texts(embedder, "video")
    assert not projects_texts(tmp_path / "none", "music")
    pairs = draw_pairs(ToyVideo, 50, 9)
    items = embed_arrays(build_from_checkpoint(embedder.checkpoint), video=pairs.video)
    topic = pairs.groups[0]
    scores = items @ embed_texts(embedder, "video", [topic])[0]
    right = np.array([group == topic for group in pairs.groups])
    assert scores[right].min() > scores[~right].mean()
    answer = _answer(embedder, Task("video", text=f"{topic}, no drums"))
    assert answer.embedding.shape == (2, items.shape[1]) and answer.wishes is None
    np.testing.assert_allclose(answer.embedding[0], embed_texts(embedder, "video", [topic])[0], atol=1e-6)
    assert _answer(embedder, Task("video", text="!")).reason == "bad_text"


def test_a_side_takes_one_backend():
    from vmnet_pipeline.pipelines.train.nodes import make_untrained

    params = [{"backend": f"toy_spaces:{kind.__name__}", "weights_dir": "."} for kind in (ToyVideo, ToyAudio, ToyPlain)]
    checkpoint, history = make_untrained(*params[:2])
    assert history == [] and checkpoint.model_config == make(ToyAudio, ToyVideo).model_config
    with pytest.raises(ParameterError, match="one backend of each side, and video has toy_video, toy_plain; name one"):
        make_untrained(*params)
