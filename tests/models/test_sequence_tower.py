"""Towers over sequences: padding has no influence, attention starts as the mean, other towers refuse sequences."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vmnet_pipeline.errors import ParameterError
from vmnet_pipeline.models.cca_tower import fit_towers
from vmnet_pipeline.models.embed import embed_arrays, gather_rows
from vmnet_pipeline.models.factory import build_model
from vmnet_pipeline.models.sequence_tower import AttentionPooling, SequenceTower, place_steps
from vmnet_pipeline.models.two_tower import VMNet
from vmnet_pipeline.models.types import MaskedSequence
from vmnet_pipeline.pairs.sequences import stack_sequences

LENGTHS = (5, 1, 9, 3)
TOWERS = ("sequence", "transformer")
ITEMS = [np.random.default_rng(k).normal(size=(length, 6)).astype(np.float32) for k, length in enumerate(LENGTHS)]


def make_tower(name: str) -> VMNet:
    """A network whose attention is not that of its start, in inference mode."""
    torch.manual_seed(0)
    model = build_model(name, "musicnn", (9, 6), (4,), embedding_dim=16, standardise=True).eval()
    model.music_scaler.mean.fill_(0.7)  # what pads a sequence is then far from zero
    torch.nn.init.normal_(model.music.pool.score.weight, std=0.5)
    return model


@pytest.mark.parametrize("name", TOWERS)
def test_padding_never_changes_an_embedding(name: str) -> None:
    model = make_tower(name)
    together = embed_arrays(model, music=stack_sequences(ITEMS, 9))
    assert together.shape == (4, 16)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1.0, atol=1e-6)
    for number, item in enumerate(ITEMS):  # a batch of one, and one of a single step among them
        alone = embed_arrays(model, music=stack_sequences([item], 9))
        np.testing.assert_allclose(alone[0], together[number], atol=1e-5)


@pytest.mark.parametrize("name", TOWERS)
def test_what_stands_behind_the_end_has_no_influence_in_training_either(name: str) -> None:
    model = make_tower(name).train()
    for part in model.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
    sequences = gather_rows(stack_sequences(ITEMS, 9), np.arange(4))
    assert isinstance(sequences, MaskedSequence)
    filled = sequences._replace(values=sequences.values.masked_fill(~sequences.mask.unsqueeze(2), 1e4))
    outputs, gradients = [], []
    for features in (sequences, filled):
        output = model.music(model.music_scaler(features))
        gradients.append(torch.autograd.grad(output.embedding[:, 0].sum(), model.music.project[0].weight)[0])
        outputs.append(output)
    torch.testing.assert_close(outputs[0].embedding, outputs[1].embedding, atol=1e-5, rtol=0)
    torch.testing.assert_close(outputs[0].structure, outputs[1].structure)
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-4, rtol=1e-4)


def test_attention_starts_as_the_mean_and_then_chooses() -> None:
    pooling = AttentionPooling(16)
    hidden = torch.rand(2, 4, 16)
    mask = torch.tensor([[True] * 4, [True, True, False, False]])
    expected = torch.stack([hidden[0].mean(dim=0), hidden[1, :2].mean(dim=0)])
    torch.testing.assert_close(pooling(hidden, mask), expected)
    hidden[0, 1], hidden[1, 3] = 1.0, 1.0  # each step looked for; the second one is masked
    torch.nn.init.constant_(pooling.score.weight, 10.0)
    chosen = pooling(hidden, mask)
    torch.testing.assert_close(chosen[0], hidden[0, 1], atol=1e-3, rtol=0)
    assert (chosen[1] - hidden[1, 3]).abs().max() > 0.1


def test_structure_feature_is_the_mean_over_steps() -> None:
    model = make_tower("sequence")
    structure = model.music(gather_rows(stack_sequences(ITEMS, 9), np.arange(4))).structure
    np.testing.assert_allclose(structure.numpy(), [item.mean(axis=0) for item in ITEMS], atol=1e-6)


def test_only_the_transformer_sees_the_order_of_steps() -> None:
    forth, back = stack_sequences(ITEMS[2:3], 9), stack_sequences([ITEMS[2][::-1]], 9)
    for name, sees_order in (("sequence", False), ("transformer", True)):
        model = make_tower(name)
        difference = np.abs(embed_arrays(model, music=forth) - embed_arrays(model, music=back)).max()
        assert (difference > 1e-3) == sees_order
        assert sees_order or difference < 1e-5


def test_arrays_of_one_length_need_no_mask() -> None:
    model = make_tower("transformer")
    array = np.stack([ITEMS[2], ITEMS[2] + 1.0])
    expected = embed_arrays(model, music=stack_sequences(list(array), 9))
    np.testing.assert_allclose(embed_arrays(model, music=array), expected, atol=1e-5)


def test_positions_differ_and_do_not_depend_on_the_length() -> None:
    places = place_steps(100, 8, torch.device("cpu"))
    assert torch.cdist(places, places).add(torch.eye(100)).min() > 0.05
    torch.testing.assert_close(place_steps(7, 8, torch.device("cpu")), places[:7])
    torch.testing.assert_close(places[:, 0], torch.arange(100.0).sin())


def test_sequences_on_one_side_only() -> None:
    model = build_model("musicnn", "sequence", (4,), (9, 6), embedding_dim=16).eval()
    assert isinstance(model.video, SequenceTower)
    assert embed_arrays(model, video=stack_sequences(ITEMS, 9)).shape == (4, 16)
    ensemble = build_model("sequence", "musicnn", (9, 6), (4,), embedding_dim=16, n_members=2).eval()
    assert embed_arrays(ensemble, music=stack_sequences(ITEMS, 9)).shape == (4, 32)


@pytest.mark.parametrize(("tower", "shape"), [("vggish", (9, 6)), ("musicnn", (6,)), ("canonical", (9, 6))])
def test_other_towers_refuse_sequences(tower: str, shape: tuple[int, ...]) -> None:
    model = build_model(tower, tower, shape, (6,), embedding_dim=16).eval()
    with pytest.raises(ParameterError, match="music features are sequences"):
        embed_arrays(model, music=stack_sequences(ITEMS, 9))


def test_canonical_analysis_refuses_sequences() -> None:
    model = build_model("canonical", "canonical", (9, 6), (6,), embedding_dim=6)
    video = np.zeros((4, 6), np.float32)
    with pytest.raises(ParameterError, match="takes pooled features"):
        fit_towers(model, stack_sequences(ITEMS, 9), video, halves=np.arange(4) % 2 == 0)


@pytest.mark.parametrize("name", TOWERS)
def test_pooled_features_are_refused(name: str) -> None:
    with pytest.raises(ParameterError, match=rf"'{name}' takes features of shape \(T, C\)"):
        build_model(name, "musicnn", (6,), (6,))
