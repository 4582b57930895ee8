"""Loss and recall between steps, as the original measures them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tiny_pairs import draw_pairs, narrow_params
from vmnet_pipeline.models.losses import VMNetLoss
from vmnet_pipeline.training import train_model
from vmnet_pipeline.training.curves import (
    measure_pairs,
    measure_recall,
    measure_training_batch,
    pick_test_batch,
)
from vmnet_pipeline.training.validation import make_loss_inputs

TRAIN, TEST = draw_pairs(26, 1), draw_pairs(9, 2)


def test_recall_is_that_of_a_stable_sort() -> None:
    similarity = np.random.default_rng(0).integers(-2, 3, (30, 30)).astype(np.float32)  # many ties
    order = np.argsort(-similarity, axis=1, kind="stable")
    for k, found in zip((1, 5, 29), measure_recall(torch.from_numpy(similarity), (1, 5, 29)), strict=True):
        assert found == pytest.approx(np.mean([i in order[i, :k] for i in range(30)]))


def test_test_batches_follow_each_other_and_the_partial_one_is_dropped() -> None:
    assert [pick_test_batch(10, 4, turn).tolist() for turn in range(3)] == [[0, 1, 2, 3], [4, 5, 6, 7], [0, 1, 2, 3]]
    assert pick_test_batch(3, 4, 5).tolist() == [0, 1, 2]


def test_measuring_changes_nothing(tmp_path) -> None:
    seen = []

    def watch(run, batch):
        seen.append((measure_training_batch(run, batch), measure_pairs(run, TEST, np.arange(9))))

    params = narrow_params(keep="last", population_variance=True)
    plain = train_model(TRAIN, None, params, state_dir=tmp_path / "plain")
    watched = train_model(TRAIN, None, params, state_dir=tmp_path / "watched", on_step=watch)
    assert len(seen) == plain.history[-1].steps
    assert all(torch.equal(plain.tensors[name], tensor) for name, tensor in watched.tensors.items())
    assert [r.losses for r in plain.history] == [r.losses for r in watched.history]
    assert seen[-1][0].losses["total"] < seen[0][0].losses["total"]


def test_a_training_batch_is_normalised_by_itself_and_keeps_its_activations(tmp_path) -> None:
    checked = []

    def watch(run, batch):
        found = measure_training_batch(run, batch)
        again = measure_training_batch(run, batch)
        assert found == again  # no dropout
        model = run.model
        music = model.music_scaler(batch.music)
        z = model.music.hidden[0].fc(music)
        z = (z - z.mean(dim=0)) / torch.sqrt(z.var(dim=0, correction=0) + 1e-3)
        z = model.music.fc(torch.relu(z * model.music.hidden[0].bn.weight + model.music.hidden[0].bn.bias))
        z = (z - z.mean(dim=0)) / torch.sqrt(z.var(dim=0, correction=0) + 1e-3)
        z = z * model.music.bn.weight + model.music.bn.bias
        expected = torch.nn.functional.normalize(z, dim=1)
        with torch.no_grad():
            video = measure_output(model, batch)
        recall = measure_recall(expected.detach() @ video.T, (1, 5))
        assert found.recall_xy[:2] == recall
        checked.append(found)

    train_model(TRAIN, None, narrow_params(keep="last", epochs=2), state_dir=tmp_path, on_step=watch)
    assert checked


def measure_output(model, batch):
    """Video embeddings of the batch, normalised by its own statistics, without dropout."""
    tower, video = model.video, model.video_scaler(batch.video)
    z = tower.hidden[0].fc(video)
    z = (z - z.mean(dim=0)) / torch.sqrt(z.var(dim=0, correction=0) + 1e-3)
    z = tower.fc(torch.relu(z * tower.hidden[0].bn.weight + tower.hidden[0].bn.bias))
    z = (z - z.mean(dim=0)) / torch.sqrt(z.var(dim=0, correction=0) + 1e-3)
    return torch.nn.functional.normalize(z * tower.bn.weight + tower.bn.bias, dim=1)


def test_other_pairs_are_measured_in_inference_mode(tmp_path) -> None:
    last = {}

    def watch(run, batch):
        last["figures"] = measure_pairs(run, TEST, np.arange(9))
        assert run.model.training

    params = narrow_params(keep="last")
    result = train_model(TRAIN, None, params, state_dir=tmp_path, on_step=watch)
    model = result.build()
    with torch.no_grad():
        output = model(torch.from_numpy(TEST.music), torch.from_numpy(TEST.video))
        inputs = make_loss_inputs(output, torch.arange(9))
        loss = VMNetLoss(margin=0.5, structure_triples="all")(inputs)
    assert last["figures"].losses["total"] == pytest.approx(float(loss["total"]), rel=1e-5)
    assert last["figures"].recall_xy == measure_recall(inputs.music @ inputs.video.T, (1, 5, 10, 20, 50, 100))
