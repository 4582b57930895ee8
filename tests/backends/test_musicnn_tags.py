"""Tags from stored features are those of the network's own last layer."""

import numpy as np
import pytest

from vmnet_pipeline.backends.musicnn_tags import MAGNATAGATUNE_TAGS, MILLION_SONG_TAGS, TAGS, make_tagger
from vmnet_pipeline.backends.registry import get_backend
from vmnet_pipeline.types import Fingerprint


def test_there_are_fifty_different_tags():
    for names in TAGS.values():
        assert len(set(names)) == len(names) == 50
    assert MILLION_SONG_TAGS[0] == "rock"
    assert MAGNATAGATUNE_TAGS[0] == "guitar"


@pytest.mark.parametrize("model", ["MSD_musicnn", "MTT_musicnn"])
def test_tags_from_the_penultimate_layer_are_those_of_the_tag_layer(model, weights_dir, write_wav, rich_sound):
    path = write_wav(rich_sound)
    named = []
    for layer in ("penultimate", "taggram"):
        backend = get_backend("musicnn", {"model": model, "layer": layer, "engine": "torch"}, weights_dir=weights_dir)
        backend.load()
        tagger = make_tagger(backend.fingerprint(), weights_dir)
        named.append(tagger.rate(backend.infer(backend.prepare(path).inputs)))
        assert tagger.names == TAGS[model]
    assert named[0].shape == (50,) and 0 <= named[0].min() < named[0].max() <= 1
    np.testing.assert_allclose(named[0], named[1], atol=1e-5)


@pytest.mark.parametrize(
    "change",
    [
        {"layer": "max_pool"},
        {"pooled": True},
        {"weights": {"name": "random", "seed": 0}},
        {"model": "unknown"},
    ],
)
def test_features_that_tags_cannot_be_had_from(change, tmp_path):
    good = {"model": "MSD_musicnn", "layer": "penultimate", "weights": {"name": "MSD_musicnn"}}
    assert make_tagger(Fingerprint("musicnn", {**good, "layer": "taggram"}), tmp_path) is not None
    assert make_tagger(Fingerprint("musicnn", {**good, **change}), tmp_path) is None
    assert make_tagger(Fingerprint("vggish", good), tmp_path) is None
    assert make_tagger(None, tmp_path) is None


def test_a_rating_is_the_mean_over_time_whether_it_was_stored_pooled_or_not(tmp_path):
    good = {"model": "MTT_musicnn", "layer": "taggram", "weights": {"name": "MTT_musicnn"}}
    taggram = np.zeros((2, 50), np.float32)
    taggram[:, 3], taggram[0, 9], taggram[1, 5] = 0.4, 1.0, 0.3
    for backend, settings, feature in (
        ("musicnn", good, taggram),
        ("musicnn_tags", {**good, "pooled": True}, taggram.mean(axis=0)),
    ):
        tagger = make_tagger(Fingerprint(backend, settings), tmp_path)
        np.testing.assert_allclose(tagger.rate(feature)[[3, 9, 5, 0]], [0.4, 0.5, 0.15, 0.0], atol=1e-6)
