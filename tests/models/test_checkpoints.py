from __future__ import annotations

import functools
import importlib.metadata
import json
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from vmnet_pipeline.errors import CheckpointError
from vmnet_pipeline.models.checkpoints import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    Checkpoint,
    build_from_checkpoint,
    check_fingerprints,
    check_shapes,
    load_checkpoint,
    read_git_revision,
    read_versions,
    save_checkpoint,
)
from vmnet_pipeline.models.embed import embed_arrays
from vmnet_pipeline.models.factory import build_model
from vmnet_pipeline.storage.checksummed import add_checksum, parse_checksummed
from vmnet_pipeline.types import Fingerprint

if TYPE_CHECKING:
    from pathlib import Path

CONFIG: dict[str, Any] = {
    "music_tower": "musicnn",
    "video_tower": "musicnn",
    "music_shape": [6],
    "video_shape": [7],
    "embedding_dim": 8,
    "dropout": 0.1,
    "standardise": True,
}


@functools.cache
def draw_tensors() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return build_model(**CONFIG).state_dict()


def make_checkpoint() -> Checkpoint:
    return Checkpoint(
        model_config=CONFIG,
        tensors={name: tensor.clone() for name, tensor in draw_tensors().items()},
        fingerprints={
            "audio": Fingerprint("musicnn", {"window_s": 300.0, "layer": "penultimate"}),
            "video": Fingerprint("efficientnet", {"model": "lite0"}),
        },
        params={"epochs": 3, "loss": {"margin": 0.5}},
        best_epoch=2,
        metrics={"mrr": 0.25},
        git_revision="0" * 40,
        versions={"torch": "2"},
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_checkpoint(tmp_path / "checkpoint", make_checkpoint())
    return tmp_path / "checkpoint"


def test_where_there_is_none_those_of_other_variants_are_named(tmp_path: Path) -> None:
    for name in ("vmnet_musicnn", "own"):
        save_checkpoint(tmp_path / name / "checkpoint", make_checkpoint())
    with pytest.raises(CheckpointError, match=r"train first, or take .* variant=own or variant=vmnet_mus"):
        load_checkpoint(tmp_path / "vmnet_fused/checkpoint")
    with pytest.raises(CheckpointError, match=r"train first$"):
        load_checkpoint(tmp_path / "elsewhere/vmnet_fused/checkpoint")


def rewrite(folder: Path, **changes: Any) -> None:
    """Another configuration with a matching checksum, so that only what is in it can be at fault."""
    content = parse_checksummed((folder / CONFIG_FILE).read_text())
    (folder / CONFIG_FILE).write_text(add_checksum({**content, **changes}))


def rewrite_weights(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Weights with a matching checksum, so that only what is in them can be at fault."""
    save_checkpoint(folder, replace(make_checkpoint(), tensors=tensors))


def test_features_of_another_shape_are_refused_by_the_tower_that_takes_them() -> None:
    checkpoint = replace(make_checkpoint(), model_config={**CONFIG, "video_tower": "vggish"})
    check_shapes(checkpoint, (6,), (7,))
    with pytest.raises(CheckpointError, match=r"music features of shape \(6,\) per item \(music tower 'musicnn'\)"):
        check_shapes(checkpoint, (5,), (7,))
    with pytest.raises(CheckpointError, match=r"video features of shape \(7,\) per item \(video tower 'vggish'\)"):
        check_shapes(checkpoint, (6,), (8,))


def test_round_trip(folder: Path) -> None:
    saved, loaded = make_checkpoint(), load_checkpoint(folder)
    assert sorted(path.name for path in folder.iterdir()) == [CONFIG_FILE, WEIGHTS_FILE]
    assert replace(loaded, tensors={}) == replace(saved, tensors={})
    assert loaded.tensors.keys() == saved.tensors.keys()
    assert all(torch.equal(loaded.tensors[name], saved.tensors[name]) for name in saved.tensors)


def test_built_network_embeds_as_the_saved_one(folder: Path) -> None:
    checkpoint = make_checkpoint()
    model = build_model(**CONFIG)
    model.load_state_dict(checkpoint.tensors)
    built = build_from_checkpoint(load_checkpoint(folder))
    assert not built.training
    assert not any(tensor.is_meta for tensor in built.state_dict().values())
    music = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)
    np.testing.assert_array_equal(embed_arrays(built, music=music), embed_arrays(model, music=music))


def test_saving_again_replaces(folder: Path) -> None:
    save_checkpoint(folder, replace(make_checkpoint(), best_epoch=9))
    assert load_checkpoint(folder).best_epoch == 9


def test_a_kill_between_the_two_files_is_noticed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = make_checkpoint().tensors
    with monkeypatch.context() as patch:
        patch.setattr("vmnet_pipeline.models.checkpoints.write_text_atomically", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            save_checkpoint(folder, replace(make_checkpoint(), tensors={k: v + 1 for k, v in tensors.items()}))
    with pytest.raises(CheckpointError, match=r"is not the file that config\.json"):
        load_checkpoint(folder)


@pytest.mark.parametrize(("name", "message"), [(CONFIG_FILE, "train first"), (WEIGHTS_FILE, "cannot be read")])
def test_a_missing_file_is_named(folder: Path, name: str, message: str) -> None:
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=message) as info:
        load_checkpoint(folder)
    assert name in str(info.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        "[" * 100_000,
        '{"format_version": 1}',
        "\x00\xff",
    ],
)
def test_a_hostile_configuration_is_refused(folder: Path, text: str) -> None:
    (folder / CONFIG_FILE).write_text(text)
    with pytest.raises(CheckpointError, match="train again"):
        load_checkpoint(folder)


def test_an_oversized_configuration_is_not_even_read(folder: Path) -> None:
    with (folder / CONFIG_FILE).open("r+b") as file:
        file.truncate(2**34)
    with pytest.raises(CheckpointError, match="larger than any"):
        load_checkpoint(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"format_version": 2},
        {"weights_sha256": "../../etc/passwd"},
        {"network": {**CONFIG, "music_shape": [10**15]}},
        {"network": {**CONFIG, "music_shape": [-6]}},
        {"network": {**CONFIG, "music_shape": "6"}},
        {"network": {**CONFIG, "embedding_dim": True}},
        {"network": {**CONFIG, "extra": 1}},
        {"fingerprints": {"smell": {"backend": "x", "settings": {}}}},
        {"metrics": {"mrr": "high"}},
        {"surprise": 1},
    ],
)
def test_each_field_of_the_configuration_is_checked(folder: Path, changes: dict[str, Any]) -> None:
    load_checkpoint(folder)
    rewrite(folder, **changes)
    with pytest.raises(CheckpointError, match="not a checkpoint's configuration"):
        load_checkpoint(folder)


def test_changed_weights_are_refused(folder: Path) -> None:
    path = folder / WEIGHTS_FILE
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="is not the file"):
        load_checkpoint(folder)


@pytest.mark.parametrize("content", [b"", b"\x00" * 7, b"\xff" * 64, b"\x08\0\0\0\0\0\0\0{}      "[:12]])
def test_hostile_weights_are_refused_even_with_a_matching_checksum(folder: Path, content: bytes) -> None:
    import hashlib

    (folder / WEIGHTS_FILE).write_bytes(content)
    rewrite(folder, weights_sha256=hashlib.sha256(content).hexdigest())
    with pytest.raises(CheckpointError, match="damaged"):
        load_checkpoint(folder)


def test_weights_that_are_not_numbers_are_refused(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS_FILE)
    tensors["music.fc.weight"][0, 0] = torch.nan
    rewrite_weights(folder, tensors)
    with pytest.raises(CheckpointError, match=r"'music\.fc\.weight' hold NaN"):
        load_checkpoint(folder)


def test_weights_of_another_network_are_refused(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS_FILE)
    for broken in (
        {name: tensor for name, tensor in tensors.items() if name != "music.fc.bias"},
        {**tensors, "music.fc.bias": torch.zeros(9)},
        {**tensors, "spare": torch.zeros(1)},
    ):
        rewrite_weights(folder, broken)
        with pytest.raises(CheckpointError, match="do not fit its network"):
            build_from_checkpoint(load_checkpoint(folder))


def test_a_huge_network_is_refused_without_allocating_it(folder: Path) -> None:
    rewrite(folder, network={**CONFIG, "music_shape": [2**24], "video_shape": [2**24]})  # 256 GiB of weights
    with pytest.raises(CheckpointError, match="do not fit its network"):
        build_from_checkpoint(load_checkpoint(folder))


def test_weights_of_another_type_are_refused(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS_FILE)
    for dtype in (torch.int64, torch.float16):
        rewrite_weights(folder, {**tensors, "music.fc.bias": tensors["music.fc.bias"].to(dtype)})
        with pytest.raises(CheckpointError, match=r"'music\.fc\.bias' are torch\..*torch\.float32"):
            build_from_checkpoint(load_checkpoint(folder))


def test_an_unknown_tower_is_named(folder: Path) -> None:
    rewrite(folder, network={**CONFIG, "music_tower": "lstm"})
    with pytest.raises(CheckpointError, match="no music tower 'lstm'"):
        build_from_checkpoint(load_checkpoint(folder))


def test_features_of_another_identity_are_refused() -> None:
    checkpoint = make_checkpoint()
    check_fingerprints(checkpoint, checkpoint.fingerprints)
    other = Fingerprint("musicnn", {"window_s": 60.0, "layer": "penultimate"})
    with pytest.raises(CheckpointError, match=r"other audio features \(window_s 300.0, not 60.0\)"):
        check_fingerprints(checkpoint, {"audio": other})
    with pytest.raises(CheckpointError, match="backend 'musicnn', not 'vggish'"):
        check_fingerprints(checkpoint, {"audio": Fingerprint("vggish", {})})
    check_fingerprints(replace(checkpoint, fingerprints={}), {"audio": other})


@pytest.mark.process
def test_git_revision(tmp_path: Path) -> None:
    assert read_git_revision(tmp_path / "nowhere") is None
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *identity, "-C", str(tmp_path), *arguments], capture_output=True, check=True)
        return done.stdout.decode().strip()

    git("init", "-q")
    assert read_git_revision(tmp_path) is None
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "-qm", "a")
    assert read_git_revision(tmp_path) == git("rev-parse", "HEAD")
    (tmp_path / "a").write_text("2")
    assert read_git_revision(tmp_path) == git("rev-parse", "HEAD") + "-dirty"


def test_versions_leave_out_what_is_not_installed() -> None:
    versions = read_versions(("torch", "no-such-package-here"))
    assert versions == {"torch": importlib.metadata.version("torch")}  # torch.__version__ adds the CUDA version to it


def test_strided_tensors_can_be_saved(tmp_path: Path) -> None:
    tensors = make_checkpoint().tensors
    view = {**tensors, "music.fc.bias": torch.zeros(16)[::2]}
    save_checkpoint(tmp_path / "c", replace(make_checkpoint(), tensors=view))
    assert torch.equal(load_checkpoint(tmp_path / "c").tensors["music.fc.bias"], torch.zeros(8))


def test_a_changed_value_of_the_configuration_is_refused(folder: Path) -> None:
    path = folder / "config.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"best_epoch": content["best_epoch"] + 1}))
    with pytest.raises(CheckpointError, match=r"config\.json is damaged .*checksum"):
        load_checkpoint(folder)
