"""Weights of the backends that are joined on one side."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tiny_training import SMALL, make_pairs

from vmnet_pipeline.errors import ParameterError
from vmnet_pipeline.params import TrainParams
from vmnet_pipeline.training import train_model
from vmnet_pipeline.training.fusion import is_better, spread_weights, weigh_parts
from vmnet_pipeline.types import FeaturePart, PairArrays

pytestmark = pytest.mark.long


def join(pairs: PairArrays, extra: np.ndarray, name: str = "extra") -> PairArrays:
    """Pairs whose music has a second part."""
    parts = (FeaturePart("first", pairs.music.shape[1]), FeaturePart(name, extra.shape[1]))
    return replace(pairs, music=np.concatenate([pairs.music, extra], axis=1), parts={"music": parts})


def draw_noise(n: int, dim: int, seed: int, scale: float = 1.0) -> np.ndarray:
    return (scale * np.random.default_rng(seed).normal(size=(n, dim))).astype(np.float32)


TRAIN, VAL = make_pairs(200, 1), make_pairs(80, 2)
NOISY = join(TRAIN, draw_noise(200, 60, 3)), join(VAL, draw_noise(80, 60, 4))


def weigh(train: PairArrays, val: PairArrays | None, **given: object) -> dict[str, float]:
    weighed = weigh_parts(train, val, TrainParams(**given))
    return {part.backend: part.weight for part in weighed.parts["music"]}


def measure_variances(train: PairArrays, **given: object) -> list[float]:
    """Total variance of each part after standardisation and weights."""
    parts = weigh_parts(train, None, TrainParams(part_weights="equal", **given)).parts["music"]
    scaled = (train.music - train.music.mean(axis=0)) / train.music.std(axis=0).clip(1e-9) * spread_weights(parts)
    return [float(part.var(axis=0).sum()) for part in np.split(scaled, [parts[0].width], axis=1)]


def test_parts_of_unlike_width_and_scale_have_the_same_total_variance():
    train = join(TRAIN, draw_noise(200, 300, 5, scale=1000.0))
    own, extra = measure_variances(train)
    assert own == pytest.approx(extra, rel=1e-4) == pytest.approx((12 + 300) / 2, rel=1e-4)


def test_entries_that_do_not_vary_do_not_count():
    extra = np.concatenate([draw_noise(200, 3, 6), np.ones((200, 50), np.float32)], axis=1)
    own, other = measure_variances(join(TRAIN, extra))
    assert own == pytest.approx(other, rel=1e-4)
    silent = measure_variances(join(TRAIN, np.zeros((200, 5), np.float32)))
    assert silent[0] > 0.0
    assert silent[1] == 0.0


def test_validation_turns_noise_down_and_leaves_what_is_alike():
    noisy = weigh(*NOISY)
    equal = weigh(*NOISY, part_weights="equal")
    assert noisy["extra"] / noisy["first"] <= 0.5 * equal["extra"] / equal["first"]
    same = weigh(join(TRAIN, TRAIN.music.copy()), join(VAL, VAL.music.copy()))
    assert same["extra"] == pytest.approx(same["first"])


def test_the_choice_depends_on_nothing_random():
    assert weigh(*NOISY) == weigh(*NOISY)


@pytest.mark.parametrize("val", [None, make_pairs(5, 2)])
def test_with_too_few_validation_pairs_all_count_alike(val):
    joint = val and join(val, draw_noise(5, 60, 4))
    assert weigh(NOISY[0], joint) == weigh(*NOISY, part_weights="equal")


def test_with_few_pairs_for_several_members_all_count_alike():
    best = {"protocol": "best"}
    assert weigh(*NOISY, **best) == weigh(*NOISY, part_weights="equal")
    assert weigh(*NOISY, **best, few_pairs=0) == weigh(*NOISY)


def test_factors_can_be_given():
    given, equal = (weigh(*NOISY, part_weights=value) for value in ({"extra": 3.0}, "equal"))
    assert given["extra"] / given["first"] == pytest.approx(3.0 * equal["extra"] / equal["first"])


def test_a_factor_for_a_backend_that_is_not_there_is_refused():
    with pytest.raises(ParameterError, match=r"part_weights names vggish.*first"):
        weigh(*NOISY, part_weights={"vggish": 2.0})
    with pytest.raises(ParameterError, match="part_weights names extra"):
        weigh_parts(TRAIN, VAL, TrainParams(part_weights={"extra": 2.0}))


def test_without_standardisation_there_are_no_weights():
    weighed = weigh_parts(*NOISY, TrainParams(standardise=False))
    assert [part.weight for part in weighed.parts["music"]] == [None, None]


def test_weights_are_in_the_scaler_of_the_trained_network(tmp_path):
    params = TrainParams(**SMALL, part_weights={"extra": 0.5})
    result = train_model(*NOISY, params, state_dir=tmp_path / "a", progress=False)
    weights = spread_weights(weigh_parts(*NOISY, params).parts["music"])
    np.testing.assert_allclose(result.tensors["music_scaler.std"] * weights, NOISY[0].music.std(axis=0), rtol=1e-4)
    plain = train_model(TRAIN, VAL, TrainParams(**SMALL), state_dir=tmp_path / "b", progress=False)
    np.testing.assert_allclose(plain.tensors["music_scaler.std"], TRAIN.music.std(axis=0), rtol=1e-4)


def test_another_weight_is_another_training(tmp_path):
    """Also where the parameters are the same, as with weights that come from a checkpoint."""
    stds = []
    for weight in (1.0, 0.25, 0.25):
        parts = {"music": tuple(replace(part, weight=weight) for part in NOISY[0].parts["music"])}
        train = replace(NOISY[0], parts=parts)
        stds.append(train_model(train, NOISY[1], TrainParams(**SMALL), state_dir=tmp_path, progress=False).tensors)
    stds = [np.asarray(tensors["music_scaler.std"]) for tensors in stds]
    np.testing.assert_allclose(stds[1], 4.0 * stds[0], rtol=1e-6)
    assert np.array_equal(stds[1], stds[2])


def test_a_gain_counts_where_it_is_larger_than_its_standard_error():
    gain = np.array([0.3, -0.1, 0.2, 0.0])
    error = gain.std(ddof=1) / 2.0
    assert is_better(gain + 0.5, np.full(4, 0.5))
    assert not is_better(gain - gain.mean() + 0.9 * error, np.zeros(4))
    assert not is_better(np.zeros(4), np.zeros(4))


def test_parts_beside_features_over_time():
    from vmnet_pipeline.pairs.sequences import stack_sequences

    def cut(pairs: PairArrays) -> PairArrays:
        return replace(pairs, video=stack_sequences([np.stack([row, row, row]) for row in pairs.video], 4))

    sequences = weigh(cut(NOISY[0]), cut(NOISY[1]))
    assert sequences == weigh(*NOISY)
