"""A trained network is calibrated on its validation pairs, and its checkpoint keeps that."""

import logging
from dataclasses import replace

import numpy as np
import pytest

from tiny_pairs import draw_pairs, narrow_params
from vmnet_pipeline.evaluation.calibration import Fold, calibrate
from vmnet_pipeline.evaluation.domain import know_items
from vmnet_pipeline.evaluation.evaluate import evaluate_retrieval
from vmnet_pipeline.models.checkpoints import Checkpoint, digest_checkpoint, load_checkpoint, save_checkpoint
from vmnet_pipeline.models.embed import embed_arrays
from vmnet_pipeline.training import train_model
from vmnet_pipeline.training.calibration import calibrate_result

PARAMS = narrow_params(epochs=30)


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    return train_model(draw_pairs(200, 1), draw_pairs(40, 2), PARAMS, state_dir=tmp_path_factory.mktemp("state"))


def test_scores_of_the_validation_pairs_are_what_counts(result):
    val = draw_pairs(40, 2)
    found = calibrate_result(result, val, PARAMS)
    model = result.build()
    sides = embed_arrays(model, music=val.music), embed_arrays(model, video=val.video)
    assert found == calibrate([Fold(*sides, np.arange(40), val.groups)], PARAMS.seed)
    directions = evaluate_retrieval(*sides, val.ids).directions.values()
    assert found.mrr == pytest.approx(np.mean([figures.mrr.value for figures in directions]))
    assert found.mrr_low > found.mrr_chance and found.curve is not None


def test_few_pairs_or_none_are_told(result, caplog):
    with caplog.at_level(logging.WARNING):
        assert calibrate_result(result, draw_pairs(19, 3), PARAMS).curve is None
        assert calibrate_result(result, draw_pairs(1, 3), PARAMS) is None
        assert calibrate_result(result, None, PARAMS) is None
    texts = [record.getMessage() for record in caplog.records]
    assert [text.split(" held-out")[0] for text in texts] == ["there are 19", "there are 0", "there are 0"]
    assert "20 are needed to tell what a score means" in texts[0]


def test_a_network_at_chance_is_told(result, caplog):
    val = draw_pairs(40, 2)
    with caplog.at_level(logging.WARNING):
        calibrate_result(result, replace(val, video=np.random.default_rng(0).permutation(val.video)), PARAMS)
    assert "not better than chance on its validation pairs" in caplog.text


def test_the_checkpoint_keeps_it_and_older_ones_have_none(result, tmp_path):
    plain = Checkpoint(result.model_config, result.tensors)
    calibrated = replace(plain, calibration=calibrate_result(result, draw_pairs(40, 2), PARAMS))
    for name, checkpoint in (("plain", plain), ("calibrated", calibrated)):
        save_checkpoint(tmp_path / name, checkpoint)
        assert load_checkpoint(tmp_path / name).calibration == checkpoint.calibration
    assert '"calibration"' not in (tmp_path / "plain/config.json").read_text()
    assert digest_checkpoint(plain) == digest_checkpoint(calibrated)


def test_it_knows_the_training_items_and_how_near_validation_items_are(result, tmp_path):
    train, val = draw_pairs(200, 1), draw_pairs(40, 2)
    calibration, model = calibrate_result(result, val, PARAMS, train=train), result.build()
    for side in ("music", "video"):
        own, held_out = (embed_arrays(model, **{side: getattr(pairs, side)}) for pairs in (train, val))
        assert calibration.known[side] == know_items(own, train.groups, held_out, PARAMS.seed)
    checkpoint = Checkpoint(result.model_config, result.tensors, calibration=calibration)
    save_checkpoint(tmp_path, checkpoint)
    assert load_checkpoint(tmp_path).calibration.known == calibration.known


def test_without_training_pairs_nothing_is_known(result):
    assert calibrate_result(result, draw_pairs(40, 2), PARAMS).known == {}
    few = calibrate_result(result, draw_pairs(10, 2), PARAMS, train=draw_pairs(15, 1))
    assert few.known == {}
