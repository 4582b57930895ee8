"""The tower and the loss of the pages about adding them, put into a copy of the project as they say, and trained."""

from __future__ import annotations

import json
import re
from pathlib import Path

import yaml
from safetensors.torch import load_file

from reference_data import make_reference_data
from vmnet_pipeline.params import CompareParams, TrainParams

DOCS = Path(__file__).resolve().parents[2] / "docs"


def read_blocks(page: str, language: str) -> list[str]:
    return re.findall(
        rf"^```{language}\n(.*?)^```$", (DOCS / page).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )


def find_block(blocks: list[str], beginning: str) -> str:
    (block,) = [block for block in blocks if block.startswith(beginning)]
    return block


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text, f"{path.name} has no {old!r}: change the page too"
    path.write_text(text.replace(old, new), encoding="utf-8")


def add_tower(models: Path) -> None:
    blocks = read_blocks("adding-a-tower.md", "python")
    (models / "linear.py").write_text(find_block(blocks, '"""A tower'))
    for table in ("MUSIC_TOWERS", "VIDEO_TOWERS"):
        opening = f"{table}: dict[str, TowerBuilder] = {{\n"
        replace(models / "factory.py", opening, opening + find_block(blocks, '    "linear"'))
    builder = find_block(blocks, "def build_linear")
    replace(models / "factory.py", "MUSIC_TOWERS: dict", f"{builder}\n\nMUSIC_TOWERS: dict")


def add_loss(models: Path) -> None:
    blocks = read_blocks("adding-a-loss.md", "python")
    (models / "soft_margin.py").write_text(find_block(blocks, '"""Ranking'))
    opening = "LOSSES: dict[str, Callable[..., nn.Module]] = {"
    builder, line = find_block(blocks, "def build_soft_margin"), find_block(blocks, '    "soft_margin"')
    replace(models / "losses.py", opening, f"{builder}\n\n{opening}\n{line}")
    params = models.parent / "params" / "training.py"
    replace(params, '    name: Literal["vmnet", "contrastive"] = Field(\n', find_block(blocks, "    name: Literal"))
    replace(params, "    margin: float = Field(", find_block(blocks, "    sharpness") + "    margin: float = Field(")


def test_a_tower_and_a_loss_of_ones_own_train(project, tmp_path):
    models = project.folder / "src" / "vmnet_pipeline" / "models"
    add_tower(models)
    add_loss(models)
    data = make_reference_data(tmp_path / "pairs")
    chosen = "train.model.music_tower=linear,train.model.video_tower=linear,train.loss.name=soft_margin"
    settings = f"pairs_dir={data},{chosen},train.loss.sharpness=20,train.epochs=3,train.batch_size=8"
    project.kedro("run", "--pipeline", "train", "--params", settings)
    (folder,) = (project.folder / "data/06_models").glob("*/vmnet_musicnn/checkpoint")
    assert json.loads((folder / "config.json").read_text())["network"]["video_tower"] == "linear"
    assert len(load_file(folder / "model.safetensors")) == 2 * (2 + 5) + 4  # fc, batch norm, standardisation


def test_the_variants_of_the_page_can_be_compared():
    (block,) = read_blocks("adding-a-tower.md", "yaml")
    params = CompareParams.model_validate(yaml.safe_load(block)["compare"])
    assert TrainParams().override(params.variants["linear"]).model.music_tower == "linear"
