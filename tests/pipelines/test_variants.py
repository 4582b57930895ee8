"""Variants as the parameters describe them."""

from __future__ import annotations

import pytest

from vmnet_pipeline.backends.registry import declare_backends
from vmnet_pipeline.errors import ParameterError
from vmnet_pipeline.params import VARIANTS
from vmnet_pipeline.pipeline_registry import register_pipelines
from vmnet_pipeline.pipelines.variants import read_variants

FUSED = {"music": ["musicnn", "vggish"], "video": "efficientnet"}


def test_without_any_there_are_those_that_are_always_there():
    assert list(read_variants({}).items()) == list(VARIANTS.items())
    assert list(read_variants({"variants": None, "variant": None})) == list(VARIANTS)


def test_a_variant_of_ones_own_has_pipelines_of_its_own():
    variants = read_variants({"variants": {"fused": FUSED}, "variant": "fused"})
    assert list(variants) == ["fused", *VARIANTS]
    pipelines = register_pipelines(variants)
    assert {"fused", "embed_fused", "index_fused", *VARIANTS} <= pipelines.keys()
    names = {node.name for node in pipelines["__default__"].nodes}
    assert {"musicnn.extract_features", "vggish.extract_features", "fused.pack_pairs", "fused.train_network"} <= names
    (packing,) = [node for node in pipelines["train"].nodes if node.name == "fused.pack_pairs"]
    assert {"musicnn.features", "vggish.features", "efficientnet.features"} <= {*packing.inputs}
    assert packing.inputs.index("musicnn.features") < packing.inputs.index("vggish.features")
    plain = register_pipelines(read_variants({"variants": {"fused": FUSED}}))
    assert {node.name for node in plain["train"].nodes} == {"vmnet_fused.pack_pairs", "vmnet_fused.train_network"}


def test_a_list_of_one_is_the_name():
    listed = {"music": ["musicnn"], "video": ["efficientnet"]}
    assert read_variants({"variants": {"own": listed}})["own"] == VARIANTS["vmnet_musicnn"]


@pytest.mark.parametrize(
    ("variants", "message"),
    [
        ({"own": {**FUSED, "music": ["musicnn", "musicnn"]}}, r"own\.music: backend 'musicnn' is named twice"),
        ({"own": {**FUSED, "music": ["musicnn", "efficientnet"]}}, "'efficientnet' makes video features, and music"),
        ({"own": {**FUSED, "video": "vggish"}}, r"own\.video: backend 'vggish' makes audio features"),
        ({"own": {**FUSED, "music": "wav2vec"}}, r"own\.music: unknown backend 'wav2vec'; known are.*musicnn"),
        ({"own": {**FUSED, "music": []}}, r"variants\.own\.music"),
        ({"own": {"music": "musicnn"}}, r"variants\.own\.video"),
        ({"own": {**FUSED, "smell": "x"}}, r"variants\.own\.smell"),
        ({"own": ["musicnn"]}, r"variants\.own"),
        ({"own": None}, r"variants\.own"),
        (["own"], "variants: must map names"),
        ({"train": FUSED}, "'train' is no name for a variant"),
        ({"musicnn": FUSED}, "'musicnn' is no name for a variant"),
        ({"embed_x": FUSED}, "'embed_x' is no name for a variant"),
        ({"a.b": FUSED}, r"'a\.b' is no name for a variant"),
        ({"../x": FUSED}, "is no name for a variant"),
    ],
)
def test_what_cannot_be_used_is_refused(variants, message):
    with pytest.raises(ParameterError, match=message):
        read_variants({"variants": variants})


def test_an_unknown_variant_is_refused_with_those_there_are():
    with pytest.raises(ParameterError, match=r"no variant 'fussed'; choose one of vmnet_fused, .*, fused, or"):
        read_variants({"variants": {"fused": FUSED}, "variant": "fussed"})


PAIR = {"music": "vggish", "video": "descriptors_video"}


@pytest.mark.parametrize(
    ("given", "name", "backends"),
    [
        (PAIR, "vggish-descriptors_video", ("vggish", "descriptors_video")),
        ({"video": "descriptors_video"}, "musicnn-descriptors_video", ("musicnn", "descriptors_video")),
        ({"music": "musicnn+vggish"}, "musicnn_vggish-efficientnet", ("musicnn", "vggish", "efficientnet")),
        ({"music": ["musicnn", "vggish"]}, "musicnn_vggish-efficientnet", ("musicnn", "vggish", "efficientnet")),
        ({"music": "vggish"}, "vmnet_vggish", ("vggish", "efficientnet")),
        ({"music": "musicnn"}, "vmnet_musicnn", ("musicnn", "efficientnet")),
        ({"music": "musicnn", "variant": "vmnet_vggish"}, "vmnet_musicnn", ("musicnn", "efficientnet")),
        ({**PAIR, "variant": "mine"}, "mine", ("vggish", "descriptors_video")),
        ({"music": "pe-av", "video": "pe-av"}, "pe-av-audio-pe-av-video", ("pe-av-audio", "pe-av-video")),
        ({"music": "clap", "video": "siglip2"}, "clap-siglip2", ("clap", "siglip2")),
        ({"music": None, "video": ""}, "vmnet_musicnn", ("musicnn", "efficientnet")),
    ],
)
def test_a_pair_is_given_by_two_parameters(given, name, backends):
    variants = read_variants({"variant": "vmnet_musicnn", **given})
    chosen, own = next(iter(variants.items()))
    assert (chosen, own.backends) == (name, backends)
    pipelines = register_pipelines(variants)
    assert {name, f"embed_{name}", f"index_{name}", *VARIANTS} <= pipelines.keys()
    assert f"{name}.train_network" in {node.name for node in pipelines["__default__"].nodes}


def test_a_side_that_is_not_given_is_that_of_the_default():
    name, own = next(iter(read_variants({"music": "vggish"}).items()))
    assert (name, own.video) == ("vggish-efficientnet_descriptors_video", VARIANTS["vmnet_fused"].video)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"music": "wav2vec"}, "music: unknown backend 'wav2vec'"),
        ({"music": "efficientnet"}, "'efficientnet' makes video features, and music needs audio"),
        ({"music": "musicnn+musicnn"}, "named twice"),
        ({"music": "musicnn+"}, "unknown backend ''"),
        ({"music": 7}, "^music: "),
        ({"music": "musicnn", "variant": "mine"}, "^video: Field required"),
        ({**PAIR, "variant": "train"}, "'train' is no name for a variant"),
        ({**PAIR, "variant": "../x"}, "is no name for a variant"),
    ],
)
def test_a_pair_that_cannot_be_is_refused(given, message):
    with pytest.raises(ParameterError, match=message):
        read_variants(given)


def test_a_side_takes_a_backend_under_two_names_once():
    declare_backends({"big": {"backend": "musicnn", "model": "MSD_musicnn_big"}})
    try:
        assert next(iter(read_variants({"music": "big", "video": "efficientnet"}))) == "big-efficientnet"
        with pytest.raises(ParameterError, match="'musicnn' and 'big' are both backend 'musicnn'"):
            read_variants({"music": "musicnn+big"})
    finally:
        declare_backends({})
