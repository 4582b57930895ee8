"""The starter model: what is shipped is what the script makes, and what uses it says so."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vmnet_pipeline import Embedder
from vmnet_pipeline.backends import descriptors_video
from vmnet_pipeline.errors import CheckpointError
from vmnet_pipeline.inference import starter
from vmnet_pipeline.inference.embedder import open_checkpoint
from vmnet_pipeline.inference.libraries import find_network
from vmnet_pipeline.inference.starter import STARTER_FOLDER, load_starter
from vmnet_pipeline.models.checkpoints import build_from_checkpoint, load_checkpoint
from vmnet_pipeline.models.embed import embed_arrays

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("fit_starter", ROOT / "tools/fit_starter.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["fit_starter"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pairs(script):
    return script.read_pairs()


@pytest.fixture
def fresh():
    load_starter.cache_clear()
    yield
    load_starter.cache_clear()


def cosines(checkpoint, pairs):
    model = build_from_checkpoint(checkpoint)
    return embed_arrays(model, music=pairs.music) @ embed_arrays(model, video=pairs.video).T


def test_what_is_shipped_is_what_the_script_makes(script, pairs):
    made, shipped = script.fit_starter(pairs), load_checkpoint(STARTER_FOLDER)
    assert made.model_config == shipped.model_config
    assert made.params == shipped.params
    assert made.parts == shipped.parts
    np.testing.assert_allclose(cosines(made, pairs), cosines(shipped, pairs), atol=1e-3)
    assert made.metrics == pytest.approx(shipped.metrics, abs=0.02)
    assert made.calibration.mrr == pytest.approx(shipped.calibration.mrr, abs=0.02)
    assert {side: [term.name for term in own] for side, own in made.terms.items()} == {
        side: [term.name for term in own] for side, own in shipped.terms.items()
    }


def test_it_is_small_and_its_card_tells_where_every_clip_is_from(script, pairs):
    files = {path.name: path.stat().st_size for path in STARTER_FOLDER.iterdir()}
    assert set(files) == {"model.safetensors", "config.json", "card.md"}
    assert sum(files.values()) <= 1_000_000
    card = (STARTER_FOLDER / "card.md").read_text(encoding="utf-8")
    rows = (script.PLACE / script.CLIPS).read_text(encoding="utf-8").splitlines()[1:]
    cells = [row.split("\t") for row in rows]
    assert len(cells) == len(pairs) == load_starter().params["n_clips"]
    for _, _, package, licence, *_, digest in cells:
        assert f"| {package} |" in card and licence in card
        assert len(digest) == 64
    assert sum(path.stat().st_size for path in script.PLACE.iterdir()) < 1_000_000


def test_the_figures_of_the_card_are_those_of_works_it_never_saw(script, pairs):
    figures = script.measure_unseen(pairs)
    card = (STARTER_FOLDER / "card.md").read_text(encoding="utf-8")
    told = float(card.partition("Recall@10")[2].split("%")[0])
    assert told == pytest.approx(100 * figures.recall, abs=1.5)
    assert figures.low > figures.chance
    shuffled = replace(pairs, video=np.random.default_rng(0).permutation(pairs.video))
    assert script.measure_unseen(shuffled).low < figures.chance + 0.02  # of mismatched pairs it learns nothing


def test_it_embeds_features_and_is_opened_like_any_checkpoint(pairs):
    embedder = Embedder.load_starter()
    music, video = embedder([pairs.music[:3], pairs.video[:3]], pooled=True)
    assert music.shape == video.shape == (3, embedder.embedding_dim)
    np.testing.assert_allclose(np.linalg.norm(music, axis=1), 1.0, atol=1e-5)
    assert Embedder.load(STARTER_FOLDER).digest == embedder.digest
    assert open_checkpoint(STARTER_FOLDER).fingerprints == load_starter().fingerprints
    assert [part.name for part in embedder.backend("music").parts] == list(starter.STARTER_BACKENDS["audio"])


def test_other_versions_of_libraries_do_and_other_descriptors_do_not(monkeypatch, fresh):
    real = descriptors_video.metadata.version
    monkeypatch.setattr(descriptors_video.metadata, "version", lambda name: f"{real(name)}.post9")
    found = load_starter().fingerprints["video"]
    assert "post9" in str(found.settings)
    assert Embedder.load_starter().backend("video").fingerprint() == found
    load_starter.cache_clear()
    monkeypatch.setattr(descriptors_video, "VERSION", descriptors_video.VERSION + 1)
    with pytest.raises(CheckpointError, match=r"other video descriptors .* tools/fit_starter.py"):
        load_starter()


def test_a_library_without_a_network_takes_it_and_says_so(caplog):
    folder, checkpoint = find_network("")
    assert folder == STARTER_FOLDER
    assert checkpoint.params["starter"]
    (told,) = [record.getMessage() for record in caplog.records if "starter" in record.getMessage()]
    assert told.startswith("no trained model found: using the starter model, fitted to ")
