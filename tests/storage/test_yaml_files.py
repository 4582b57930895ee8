"""YAML that is small as written and huge as read."""

import pytest
import yaml

from vmnet_pipeline.backends.weights import read_weight_table
from vmnet_pipeline.errors import WeightsError
from vmnet_pipeline.hooks.config_loader import load_as_written
from vmnet_pipeline.storage.yaml_files import load_yaml

BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 9)}]\n" for k in range(1, 30))


@pytest.mark.parametrize("load", [load_yaml, load_as_written])
@pytest.mark.parametrize("text", [BOMB, "a: &a [*a]\n", "a: &a {b: *a}\n"])
def test_aliases_that_write_out_to_too_much(load, text):
    with pytest.raises(yaml.YAMLError, match="its aliases write out to more than 200000 values"):
        load(text)


@pytest.mark.parametrize("load", [load_yaml, load_as_written])
def test_honest_aliases(load):
    assert load("a: &a {x: 1}\nb: {<<: *a, y: [*a, *a]}\n") == {"a": {"x": 1}, "b": {"x": 1, "y": [{"x": 1}] * 2}}
    assert load("") is None


def test_a_table_of_weights(tmp_path, monkeypatch):
    (tmp_path / "conf/local").mkdir(parents=True)
    (tmp_path / "conf/local/weights.yml").write_text(BOMB)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsError, match="its aliases write out"):
        read_weight_table()
