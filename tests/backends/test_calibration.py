"""The precision that a network runs in is measured once per kind of processor, kept, and never changed in a store."""

from __future__ import annotations

import logging
import pickle
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
from click.testing import CliRunner

from vmnet_pipeline.backends import calibration, engine, processor
from vmnet_pipeline.backends.calibration import Calibration, follow_stored, list_calibrations, measure_precisions
from vmnet_pipeline.backends.engine import BackendParams
from vmnet_pipeline.backends.joint import JointBackend
from vmnet_pipeline.backends.musicnn import MusicnnBackend
from vmnet_pipeline.backends.network_backend import NetworkBackend
from vmnet_pipeline.backends.vggish import VggishBackend
from vmnet_pipeline.backends.whole_file import WholeFileBackend
from vmnet_pipeline.errors import ParameterError
from vmnet_pipeline.params import PieceParams
from vmnet_pipeline.types import Fingerprint, MediaItem, PreparedItem

EXAMPLES = [np.ones((4, 3), np.float32), np.arange(6, dtype=np.float32).reshape(2, 3)]


class Clock:
    """Seconds that pass only when a network runs."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def choose(seconds, errors, monkeypatch):
    """What is chosen of networks that take so long per input and are wrong by so much."""
    clock = Clock()
    monkeypatch.setattr(calibration, "list_precisions", lambda: list(seconds))

    def build(precision):
        def run(inputs):
            if errors.get(precision) is None and precision != "f32":
                raise RuntimeError("no kernel")
            clock.now += seconds[precision] * len(inputs)
            turned = np.roll(inputs, 1, axis=1) * [0.0, 1.0, -1.0]
            return inputs + errors.get(precision, 0.0) * turned

        return run

    return measure_precisions(build, EXAMPLES, lambda outputs: outputs.mean(axis=0), clock)


@pytest.mark.parametrize(
    ("seconds", "errors", "expected"),
    [
        ({"f32": 0.10}, {}, "f32"),
        ({"f32": 0.10, "bf16": 0.05}, {"bf16": 0.01}, "bf16"),
        ({"f32": 0.10, "bf16": 0.18}, {"bf16": 0.01}, "f32"),
        ({"f32": 0.10, "bf16": 0.05}, {"bf16": 0.3}, "f32"),
        ({"f32": 0.10, "bf16": 0.05, "f16": 0.02}, {"bf16": 0.01, "f16": 0.001}, "f16"),
        ({"f32": 0.10, "bf16": 0.05, "f16": 0.02}, {"bf16": 0.01, "f16": 0.3}, "bf16"),
        ({"f32": 0.10, "bf16": 0.098}, {"bf16": 0.0}, "f32"),
        ({"f32": 0.10, "bf16": 0.05, "f16": 0.02}, {"bf16": 0.01, "f16": None}, "bf16"),
    ],
    ids=["one", "faster", "slower", "wrong", "fastest", "next", "no gain", "no kernel"],
)
def test_the_fastest_precision_that_keeps_the_features_is_chosen(seconds, errors, expected, monkeypatch):
    precision, speeds, cosines = choose(seconds, errors, monkeypatch)
    assert precision == expected
    assert cosines["f32"] == pytest.approx(1.0)
    if len(seconds) > 1:
        assert speeds == {name: pytest.approx(1 / seconds[name]) for name in speeds}


class Small(NetworkBackend):
    """Numbers in a text file, through a network that is wide enough to be rounded."""

    name: ClassVar[str] = "small"
    modality: ClassVar[str] = "audio"
    params_type: ClassVar[type[BackendParams]] = BackendParams
    weights_name = "toy"
    input_shape = (3, 8)

    def _identify_weights(self):
        return {"name": self.params.weights}

    def describe_settings(self):
        return {"length": 3}

    def build_network(self):
        import torch

        torch.manual_seed(0)
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(24, 64), torch.nn.ReLU())

    def make_examples(self):
        return [np.random.default_rng(seed).random((2, 3, 8), np.float32) for seed in range(2)]

    def prepare(self, path):
        return PreparedItem(np.ones((2, 3, 8), np.float32), 2)

    def stream(self, path, window_s, hop_s):
        yield self.prepare(path)


@pytest.fixture
def machine(monkeypatch):
    """An x86 processor with bf16 on which networks take as long as it is told; counts the measurements."""

    class Machine:
        seconds: ClassVar[dict[str, float]] = {"f32": 1.0, "bf16": 0.5}
        n_measured = 0

        def time_rounds(self, runs, inputs, clock):
            self.n_measured += 1
            yield from ((name, self.seconds[name]) for name in runs)

    machine = Machine()
    monkeypatch.setattr(engine, "has_cuda", lambda *_: False)
    monkeypatch.setattr(engine, "_is_x86", lambda: True)
    monkeypatch.setattr(engine, "has_bf16", lambda: True)
    monkeypatch.setattr(calibration, "list_precisions", lambda: list(machine.seconds))
    monkeypatch.setattr(calibration, "_time_rounds", machine.time_rounds)
    return machine


def precision_of(backend):
    return backend.fingerprint().settings["precision"]


def test_it_is_measured_once_and_kept_beside_the_converted_network(machine, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    assert [precision_of(Small(weights_dir=tmp_path)) for _ in range(3)] == ["bf16"] * 3
    assert machine.n_measured == 1
    assert caplog.text.count("Precision by measurement: small toy on") == 1
    (kept,) = list_calibrations(tmp_path / "converted")
    assert kept.precision == "bf16"
    assert kept.cosines["bf16"] >= 0.999
    assert kept.inputs_per_s == {"f32": pytest.approx(4.0), "bf16": pytest.approx(8.0)}
    backend = Small(weights_dir=tmp_path)
    backend.load()
    assert backend.infer(np.ones((2, 3, 8), np.float32)).shape == (2, 64)


def test_another_kind_of_processor_and_other_threads_are_measured_for_themselves(machine, tmp_path, monkeypatch):
    assert precision_of(Small({"n_threads": 1}, weights_dir=tmp_path)) == "bf16"
    machine.seconds = {"f32": 1.0, "bf16": 1.8}
    assert precision_of(Small({"n_threads": 2}, weights_dir=tmp_path)) == "f32"
    assert precision_of(Small({"n_threads": 1}, weights_dir=tmp_path)) == "bf16"
    hidden = processor.Processor("The same name", frozenset({"avx512_bf16"}))
    monkeypatch.setattr(calibration, "read_processor", lambda: hidden)
    assert precision_of(Small({"n_threads": 1}, weights_dir=tmp_path)) == "f32"
    assert machine.n_measured == 3


def test_a_damaged_measurement_is_made_again(machine, tmp_path):
    precision_of(Small(weights_dir=tmp_path))
    (path,) = (tmp_path / "converted").glob("*.precision.json")
    for content in ("", "[]", "{}", path.read_text().replace('"bf16"', '"f32"', 1), '{"checksum": "x"}'):
        path.write_text(content)
        assert list_calibrations(tmp_path / "converted") == []
        machine.n_measured = 0
        assert precision_of(Small(weights_dir=tmp_path)) == "bf16"
        assert machine.n_measured == 1


def test_a_process_that_measured_at_the_same_time_decides_for_both(machine, tmp_path):
    path = tmp_path / "one.json"
    other = Calibration("n", "p", 1, "bf16", {"f32": 1.0, "bf16": 2.0}, {"f32": 1.0, "bf16": 1.0})

    def measure():
        calibration.recall_or_measure(path, lambda: other)
        return mine

    mine = Calibration("n", "p", 1, "f32", {"f32": 1.0, "bf16": 1.0}, {"f32": 1.0, "bf16": 1.0})
    assert calibration.recall_or_measure(path, measure) == other


@pytest.mark.parametrize("params", [{"precision": "f32"}, {"weights": "random"}, {"engine": "torch"}], ids=str)
def test_nothing_is_measured_where_there_is_nothing_to_choose(params, machine, tmp_path):
    assert precision_of(Small(params, weights_dir=tmp_path)) == "f32"
    assert machine.n_measured == 0


def test_workers_take_what_the_driver_decided(machine, tmp_path, monkeypatch):
    backend = Small(weights_dir=tmp_path)
    wanted = backend.fingerprint()
    machine.seconds = {"f32": 1.0, "bf16": 9.0}
    for path in (tmp_path / "converted").glob("*.precision.json"):
        path.unlink()
    worker = pickle.loads(pickle.dumps(backend))
    assert worker.fingerprint() == wanted
    monkeypatch.setattr(engine, "has_bf16", lambda: False)
    with pytest.raises(ParameterError, match="bf16: this processor"):
        worker.fingerprint()


def keep(backend):
    return backend


def join(backend):
    return JointBackend([backend])


def read_whole(backend):
    return WholeFileBackend(backend, PieceParams())


@pytest.mark.parametrize("wrap", [keep, join, read_whole])
@pytest.mark.parametrize(("kept", "seconds"), [("f32", 0.5), ("bf16", 1.8)])
def test_a_store_keeps_its_precision(kept, seconds, wrap, machine, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    machine.seconds = {"f32": 1.0, "bf16": seconds}
    stored = wrap(Small({"precision": kept}, weights_dir=tmp_path)).fingerprint()
    backend = wrap(Small(weights_dir=tmp_path))
    for _ in range(2):
        follow_stored(backend, stored)
    assert backend.fingerprint() == stored
    said = [record.getMessage() for record in caplog.records if "goes on in" in record.getMessage()]
    gain = {"f32": "bf16 would be 2.00 times", "bf16": "f32 would be 1.80 times"}[kept]
    assert len(said) == 1
    assert f"goes on in {kept}; {gain} as fast here" in said[0]


def test_a_store_of_other_settings_is_still_refused(machine, tmp_path):
    explicit = Small({"precision": "bf16"}, weights_dir=tmp_path)
    stored = Small({"precision": "f32"}, weights_dir=tmp_path).fingerprint()
    follow_stored(explicit, stored)
    assert explicit.fingerprint() != stored
    unknown = Fingerprint("small", {**stored.settings, "precision": "f16"})
    backend = Small(weights_dir=tmp_path)
    follow_stored(backend, unknown)
    follow_stored(backend, None)
    assert precision_of(backend) == "bf16"


def test_a_run_goes_on_in_the_precision_of_its_store(machine, tmp_path, monkeypatch):
    import pandas as pd

    from vmnet_pipeline.backends import registry
    from vmnet_pipeline.extraction.driver import extract_missing
    from vmnet_pipeline.features.store import FeatureStore
    from vmnet_pipeline.params import ExtractParams
    from vmnet_pipeline.pipelines.extract.nodes import extract_features, plan_missing

    store = FeatureStore(tmp_path / "store")
    store.set_fingerprint(Small({"precision": "f32"}, weights_dir=tmp_path).fingerprint())
    params = ExtractParams.model_validate({"n_workers": 1, "executor": {"kind": "serial"}})
    monkeypatch.setattr(registry, "make_backend", lambda _: Small(weights_dir=tmp_path))
    (tmp_path / "a.txt").write_text("1")
    item = MediaItem("a", str(tmp_path / "a.txt"), "sha256:1")
    columns = {"id": "a", "audio_path": item.path, "audio_checksum": item.checksum, "status": "ok"}
    assert plan_missing(pd.DataFrame([columns]), store, {}, params) == [item]
    assert extract_features([], store, {}, params).fingerprint == store.fingerprint()
    (row,) = extract_missing(Small(weights_dir=tmp_path), [item], store, params)
    assert row.status == "done"
    assert store.fingerprint().settings["precision"] == "f32"


def test_a_trained_network_gets_features_in_the_precision_that_it_was_trained_on(machine, tmp_path, monkeypatch):
    from vmnet_pipeline.inference import embedder
    from vmnet_pipeline.models.checkpoints import Checkpoint

    trained_on = Small({"precision": "f32"}, weights_dir=tmp_path).fingerprint()
    held = SimpleNamespace(
        checkpoint=Checkpoint({}, {}, {"audio": trained_on}), _chosen={"music": {"backend": "small"}}, weights_dir=""
    )
    monkeypatch.setattr(embedder, "join_backends", lambda _: Small(weights_dir=tmp_path))
    assert embedder.Embedder._make_backend(held, "music").fingerprint() == trained_on


@pytest.mark.parametrize("kind", [MusicnnBackend, VggishBackend])
def test_examples_have_the_shape_of_the_network_and_are_the_same_every_time(kind):
    examples, again = kind().make_examples(), kind().make_examples()
    assert all(inputs.shape[1:] == kind.input_shape and np.isfinite(inputs).all() for inputs in examples)
    assert all(np.array_equal(*pair) for pair in zip(examples, again, strict=True))
    assert sum(map(len, examples)) >= 10


def test_weights_list_shows_what_was_measured(machine, tmp_path):
    from vmnet_pipeline.commands.weights import list_weight_sets

    precision_of(Small({"n_threads": 2}, weights_dir=tmp_path))
    result = CliRunner().invoke(list_weight_sets, ["--weights-dir", str(tmp_path)])
    assert result.exit_code == 0, result.output
    line = next(line for line in result.output.splitlines() if line.startswith("precision: small toy on"))
    assert "2 threads: bf16 of f32 4 inputs/s (cosine 1.00000), bf16 8 inputs/s" in line


def test_the_processor_is_told_by_its_name_and_flags(tmp_path):
    path = tmp_path / "cpuinfo"
    path.write_text("processor\t: 0\nmodel name\t: Some CPU\nflags\t\t: avx2 amx_bf16\n\nflags\t: fpu\n")
    found = processor.read_processor(path)
    assert found == ("Some CPU", {"avx2", "amx_bf16"})
    assert found.digest != processor.Processor("Some CPU", frozenset({"avx2"})).digest
    assert processor.read_processor(tmp_path / "none").flags == frozenset()
