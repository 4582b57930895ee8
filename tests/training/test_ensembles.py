from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tiny_pairs import Killed, Logs, draw_pairs, narrow_params
from vmnet_pipeline.training import train_model
from vmnet_pipeline.training.ensembles import join_results, member_params, train_members

TRAIN, VAL = draw_pairs(40, 1), draw_pairs(12, 2)
PARAMS = narrow_params(n_members=3)


def train(folder, params=PARAMS, logs=None):
    members = train_members(TRAIN, VAL, params, state_dir=folder, open_log=logs or Logs())
    return members, join_results(members, VAL, params)


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_members_differ_in_their_seeds_alone_and_the_first_has_that_of_the_settings():
    members = member_params(PARAMS)
    assert members[0].seed == PARAMS.seed
    assert len({member.seed for member in members}) == 3
    assert {member.n_members for member in members} == {1}
    assert all(member.model_copy(update={"seed": PARAMS.seed}) == members[0] for member in members)
    assert [m.seed for m in member_params(narrow_params(n_members=2))] == [m.seed for m in members[:2]]


@pytest.mark.parametrize(("member", "epoch"), [(0, 2), (1, 3), (2, 5)])
def test_killed_in_any_member_and_resumed_it_gives_the_same_bits(tmp_path, member, epoch):
    _, whole = train(tmp_path / "whole")
    with pytest.raises(Killed):
        train(tmp_path / "cut", logs=Logs(member, epoch))
    logs = Logs()
    _, resumed = train(tmp_path / "cut", logs=logs)
    assert [len(logs.by_name[number].epochs) for number in range(member)] == [0] * member
    assert len(logs.by_name[member].epochs) == 5 - min(epoch, 4)  # the last epoch is saved with the end of training
    assert same(whole.tensors, resumed.tensors)
    assert whole.metrics == resumed.metrics
    assert [replace(r, seconds=0) for r in whole.history] == [replace(r, seconds=0) for r in resumed.history]


def test_a_network_alone_is_the_first_member(tmp_path):
    alone = train_model(TRAIN, VAL, narrow_params(), state_dir=tmp_path)
    logs = Logs()
    members, _ = train(tmp_path, logs=logs)
    assert logs.by_name[0].epochs == []  # taken over from the training of one network
    assert same(alone.tensors, members[0].tensors)
    assert not same(members[0].tensors, members[1].tensors)


def test_the_joint_network_is_measured_on_validation_pairs(tmp_path):
    members, joint = train(tmp_path)
    assert joint.model_config["n_members"] == 3
    assert joint.best_epoch == 0
    assert len(joint.history) == sum(len(member.history) for member in members)
    from vmnet_pipeline.models.losses import VMNetLoss
    from vmnet_pipeline.training.data import encode_matches
    from vmnet_pipeline.training.validation import evaluate_model

    expected = evaluate_model(joint.build(), VMNetLoss(), VAL, encode_matches(VAL, "id"), 12)
    expected.pop("loss")
    assert joint.metrics == pytest.approx(expected)


def test_one_member_is_given_back_as_it_is(tmp_path):
    (member,), joint = train(tmp_path, narrow_params())
    assert joint is member
    assert "n_members" not in joint.model_config
