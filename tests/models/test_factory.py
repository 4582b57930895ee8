from __future__ import annotations

import math

import pytest
import torch

from vmnet_pipeline.errors import ParameterError
from vmnet_pipeline.models.factory import build_model, choose_music_tower
from vmnet_pipeline.models.pooled_tower import HiddenLayer, TimeFusion
from vmnet_pipeline.models.two_tower import Standardise


def n_trainable(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


@pytest.mark.parametrize(
    ("variant", "music_shape", "n_music", "n_video"),
    [("vggish", (62, 512), 3_674_638, 5_246_464), ("musicnn", (500,), 3_654_144, 5_250_560)],
)
def test_parameter_counts_are_those_of_the_paper_table(
    variant: str, music_shape: tuple[int, ...], n_music: int, n_video: int
) -> None:
    with torch.device("meta"):
        model = build_model(variant, variant, music_shape, (2048,))
    assert n_trainable(model.music) == n_music
    assert n_trainable(model.video) == n_video


@pytest.mark.parametrize(("variant", "music_shape"), [("vggish", (62, 512)), ("musicnn", (200,))])
@pytest.mark.parametrize("is_training", [True, False])
def test_embeddings_are_unit_vectors(variant: str, music_shape: tuple[int, ...], is_training: bool) -> None:
    torch.manual_seed(0)
    model = build_model(variant, variant, music_shape, (1280,)).train(is_training)
    music, video = torch.randn(5, *music_shape), torch.randn(5, 1280)
    for embedding in (model.embed_music(music), model.embed_video(video)):
        assert embedding.shape == (5, 512)
        assert embedding.dtype == torch.float32
        torch.testing.assert_close(embedding.norm(dim=1), torch.ones(5))


def test_structure_feature_of_the_vggish_tower_is_the_output_of_its_time_filters() -> None:
    torch.manual_seed(0)
    model = build_model("vggish", "vggish", (62, 512), (16,)).eval()
    music = torch.rand(3, 62, 512)
    output = model.music(music)
    first, second = model.music.time_fusion
    assert first(music.unsqueeze(1)).shape == (3, 1, 20, 512)
    assert second(first(music.unsqueeze(1))).shape == (3, 1, 6, 512)
    torch.testing.assert_close(output.structure, second(first(music.unsqueeze(1)))[:, 0].mean(dim=1))
    assert output.structure.requires_grad


def test_structure_feature_of_a_pooled_tower_is_its_input() -> None:
    model = build_model("musicnn", "musicnn", (20,), (30,))
    music, video = torch.randn(4, 20), torch.randn(4, 30)
    output = model(music, video)
    assert torch.equal(output.music.structure, music)
    assert torch.equal(output.video.structure, video)


def test_time_fusion_filters_each_channel_along_time_only() -> None:
    layer = TimeFusion(5, dropout=0.0).eval()
    with torch.no_grad():
        layer.conv.weight.copy_(torch.tensor([0.0, 0.0, 0.0, 0.0, 1.0]).view(1, 1, 5, 1))  # looks two steps ahead
    x = torch.arange(1.0, 25.0).view(1, 1, 12, 2)
    shifted = torch.cat([x[:, :, 2:], torch.zeros(1, 1, 2, 2)], dim=2) / math.sqrt(1 + 1e-3)
    torch.testing.assert_close(layer(x), shifted.view(1, 1, 4, 3, 2).amax(dim=3))


def test_only_the_musicnn_variant_normalises_the_first_hidden_layer() -> None:
    for variant, shape, has_norm in (("vggish", (62, 8), False), ("musicnn", (8,), True)):
        model = build_model(variant, variant, shape, (8,))
        music = model.music.head if variant == "vggish" else model.music
        for tower in (music, model.video):
            assert isinstance(tower.hidden[0].bn, torch.nn.BatchNorm1d) is has_norm
            assert all(isinstance(layer.bn, torch.nn.Identity) for layer in tower.hidden[1:])


def test_hidden_layer_weights_are_truncated_normal_of_he_deviation() -> None:
    torch.manual_seed(0)
    layer = HiddenLayer(500, 2048, normalise=False, dropout=0.1)
    he = math.sqrt(2 / 500)
    weight = layer.fc.weight
    assert weight.abs().max() <= 2 * he
    assert weight.abs().max() > 1.99 * he
    # A normal cut at two deviations keeps 0.8796 of its deviation.
    assert float(weight.detach().std()) == pytest.approx(0.8796 * he, rel=0.01)
    assert not layer.fc.bias.any()


def test_time_filters_are_glorot_uniform() -> None:
    torch.manual_seed(0)
    weights = torch.cat([TimeFusion(5, 0.1).conv.weight.detach().flatten() for _ in range(400)])
    limit = math.sqrt(6 / 10)  # 5 in, 5 out
    assert weights.abs().max() <= limit
    assert float(weights.std()) == pytest.approx(limit / math.sqrt(3), rel=0.05)


def test_norm_and_dropout_settings_are_the_reference_s() -> None:
    model = build_model("vggish", "vggish", (62, 8), (8,))
    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d)]
    drops = [m for m in model.modules() if isinstance(m, torch.nn.Dropout)]
    assert len(norms) == 4
    assert {(m.eps, m.momentum) for m in norms} == {(1e-3, 0.01)}
    assert len(drops) == 5
    assert {m.p for m in drops} == {0.1}


def test_standardise_scales_before_the_tower() -> None:
    model = build_model("musicnn", "musicnn", (6,), (7,), standardise=True).eval()
    plain = build_model("musicnn", "musicnn", (6,), (7,)).eval()
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if "scaler" not in k})
    assert isinstance(model.music_scaler, Standardise)
    model.music_scaler.mean.fill_(3.0)
    model.music_scaler.std.fill_(2.0)
    x = torch.randn(4, 6)
    torch.testing.assert_close(model.embed_music(3.0 + 2.0 * x), plain.embed_music(x))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("lstm", "musicnn", (8,), (8,)), "no music tower 'lstm'"),
        (("musicnn", "lstm", (8,), (8,)), "no video tower 'lstm'"),
        (("musicnn", "musicnn", (62, 8), (8,)), r"shape \(D,\)"),
        (("vggish", "vggish", (8,), (8,)), r"shape \(T, C\)"),
        (("vggish", "vggish", (8, 8), (8,)), "8 steps"),
    ],
)
def test_unusable_towers_are_named(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        build_model(*arguments)  # type: ignore[arg-type]


def test_music_tower_follows_the_shape() -> None:
    assert choose_music_tower((62, 512)) == "vggish"
    assert choose_music_tower((200,)) == "musicnn"


def list_widths(tower: torch.nn.Module) -> list[int]:
    return [layer.out_features for layer in tower.modules() if isinstance(layer, torch.nn.Linear)]


def test_depth_can_be_chosen_and_the_published_one_is_the_default() -> None:
    model = build_model("musicnn", "vggish", (6,), (5,), music_layers=5, video_layers=1)
    assert (list_widths(model.music), list_widths(model.video)) == ([2048, 1024, 1024, 512, 512], [512])
    model = build_model("vggish", "musicnn", (62, 6), (5,))
    assert (list_widths(model.music), list_widths(model.video)) == ([2048, 1024, 512], [2048, 512])
    with pytest.raises(ParameterError, match="1 to 5 fully connected layers, not 6"):
        build_model("musicnn", "musicnn", (6,), (5,), music_layers=6)
    with pytest.raises(ParameterError, match="'canonical' has neither `music_layers` nor `linear`"):
        build_model("canonical", "canonical", (6,), (5,), linear=True)


def test_a_linear_tower_has_no_relu_and_no_norm_but_the_last() -> None:
    torch.manual_seed(0)
    tower = build_model("musicnn", "musicnn", (6,), (5,), embedding_dim=8, linear=True).music.eval()
    first, second = torch.rand(2, 4, 6)
    hidden = tower.hidden
    torch.testing.assert_close(
        hidden(first) + hidden(second), hidden(first + second) + hidden(torch.zeros(4, 6)), rtol=1e-4, atol=1e-4
    )
    norms = [layer for layer in tower.modules() if isinstance(layer, torch.nn.BatchNorm1d)]
    assert norms == [tower.bn]
