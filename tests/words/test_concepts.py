"""Concepts from the table, and from what has no concept there."""

from pathlib import Path

import pytest

from vmnet_pipeline.backends.descriptors.names import AUDIO_DESCRIPTORS, NAMED_DESCRIPTORS, VIDEO_DESCRIPTORS
from vmnet_pipeline.backends.musicnn_tags import TAGS
from vmnet_pipeline.errors import ParameterError
from vmnet_pipeline.storage.yaml_files import load_yaml
from vmnet_pipeline.words.concepts import list_concepts

TABLE = Path(__file__).parents[2] / "conf/base/words.yml"


def test_the_shipped_table_names_only_tags_and_descriptors_that_exist():
    known = {tag.lower() for tags in TAGS.values() for tag in tags} | set(NAMED_DESCRIPTORS)
    for name, entry in load_yaml(TABLE.read_text()).items():
        assert {str(tag).lower() for key in ("more", "less") for tag in entry.get(key, ())} <= known, name
        assert entry["says"] and (entry.get("more") or entry.get("less")), name


@pytest.mark.parametrize("model", ["MSD_musicnn", "MTT_musicnn"])
def test_every_tag_can_be_asked_for(model):
    columns = [f"{model}:{tag}" for tag in TAGS[model]]
    raised = {column for concept in list_concepts(columns) for column, weight in concept.columns.items() if weight > 0}
    assert raised == set(columns)


def test_weights_of_a_concept_are_shared_by_what_is_stored():
    columns = ["MTT_musicnn:slow", "MTT_musicnn:fast", "descriptors_audio:tempo"]
    slow = next(concept for concept in list_concepts(columns) if concept.name == "slow")
    assert slow.columns == {"MTT_musicnn:slow": 0.5, "MTT_musicnn:fast": -0.25, "descriptors_audio:tempo": -0.25}
    assert "adagio" in slow.says and slow.says.count("slow") == 1
    (alone,) = [own for own in list_concepts(["MTT_musicnn:slow"]) if own.name == "slow"]
    assert alone.columns == {"MTT_musicnn:slow": 1.0}


def test_a_tag_of_two_networks_counts_once():
    (guitar,) = [own for own in list_concepts(["a:guitar", "b:Guitar"]) if own.name == "guitar"]
    assert guitar.columns == {"a:guitar": 0.5, "b:Guitar": 0.5}


def test_what_has_no_concept_is_asked_for_by_its_name_and_unnamed_numbers_are_not():
    concepts = list_concepts(["efficientnet-lite0:kite (bird of prey)", "descriptors_video:sky"])
    assert [(own.says, dict(own.columns)) for own in concepts] == [
        (("kite",), {"efficientnet-lite0:kite (bird of prey)": 1.0})
    ]
    assert list_concepts([]) == []


def test_a_private_table_adds_and_replaces(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf/local").mkdir(parents=True)
    private = tmp_path / "conf/local/words.yml"
    private.write_text("piano: {says: [Klavier], more: [piano]}\nspooky: {says: [spooky], more: [weird]}\n")
    concepts = {own.name: own for own in list_concepts(["MTT_musicnn:piano", "MTT_musicnn:weird"])}
    assert concepts["piano"].says == ("klavier", "piano")
    assert concepts["spooky"].columns == {"MTT_musicnn:weird": 1.0}
    for text, fault in (("- 1", "must map names"), ("a: 1", "a: give"), ("a: {more: x}", "are lists"), ("{", "conf")):
        private.write_text(text)
        with pytest.raises(ParameterError, match=rf"words.yml: not a table of concepts .*{fault}|words.yml"):
            list_concepts(["MTT_musicnn:piano"])


def test_every_descriptor_with_words_has_a_place_or_is_left_out_on_purpose():
    asked = {
        tag for entry in load_yaml(TABLE.read_text()).values() for key in ("more", "less") for tag in entry.get(key, ())
    }
    assert {"tempo", "loudness", "brightness", "mode"} <= asked & {own.name for own in AUDIO_DESCRIPTORS}
    assert {"light", "motion", "cuts", "colourfulness"} <= asked & {own.name for own in VIDEO_DESCRIPTORS}
