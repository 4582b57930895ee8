"""What the pages show works: Python is run; commands, options, parameters and pipelines that they name exist."""

from __future__ import annotations
import __future__

import doctest
import re
import runpy
import shlex
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from doc_pages import DOCS, PAGES, ROOT, find_blocks, find_commands, name_page
from pydantic import BaseModel

WITH_PYTHON = [page for page in PAGES if find_blocks(page, "python")]
NOT_RUN = {"docs/scaling.md": "a recipe for Airflow, which is no dependency; it is compiled only"}
FRAGMENTS = ("adding-a-backend.md", "adding-a-tower.md", "adding-a-loss.md")
"""Pages with lines to be put into a file; tests of their own do that."""

OTHER_PROGRAMS = {
    "#SBATCH", "cd", "curl", "dask", "docker", "done", "eval", "exec", "export", "for", "git", "mkdir", "mlflow", "npm",
    "nohup", "pip", "pre-commit", "pytest", "sbatch", "source", "tar", "tensorboard", "torchrun", "uv", "wait",
}  # fmt: skip


@pytest.fixture
def place(tmp_path, demo_project, monkeypatch) -> Path:
    """A folder with what the examples take for granted: the demo after `kedro run`, a song and a clip."""
    (tmp_path / "data").symlink_to(demo_project.folder / "data")
    (tmp_path / "weights").symlink_to(demo_project.folder / "data/06_models/weights")
    media = demo_project.folder / "data/01_raw/demo"
    shutil.copy(sorted(media.glob("video/*.mp4"))[0], tmp_path / "clip.mp4")
    shutil.copy(sorted(media.glob("audio/*"))[0], tmp_path / "song.mp3")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def is_needed(page: Path) -> bool:
    return any('"data/' in block.text or "song.mp3" in block.text for block in find_blocks(page, "python"))


def run_blocks(page: Path) -> None:
    """All Python of a page, in one namespace, as if it were one file with postponed annotations."""
    namespace: dict[str, Any] = {"__name__": "page"}
    for block in find_blocks(page, "python"):
        if block.text.startswith("    "):
            assert page.name in FRAGMENTS, f"{name_page(page)} has a fragment that no test puts anywhere"
            continue
        code = compile(block.text, page.name, "exec", flags=__future__.annotations.compiler_flag, dont_inherit=True)
        if name_page(page) not in NOT_RUN:
            exec(code, namespace)  # noqa: S102


@pytest.mark.long
@pytest.mark.parametrize("page", [page for page in WITH_PYTHON if not is_needed(page)], ids=name_page)
def test_python_of_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_blocks(page)


@pytest.mark.process
@pytest.mark.parametrize("page", [page for page in WITH_PYTHON if is_needed(page)], ids=name_page)
def test_python_of_a_page_runs_on_the_demo(page, place):
    run_blocks(page)


@pytest.mark.parametrize("page", [page for page in PAGES if find_blocks(page, "pycon")], ids=name_page)
def test_sessions_of_a_page_give_what_they_show(page):
    from vmnet_pipeline import datasets

    names = {name: getattr(datasets, name) for name in datasets.__all__}
    for block in find_blocks(page, "pycon"):
        test = doctest.DocTestParser().get_doctest(block.text, dict(names), page.name, str(page), 0)
        assert not doctest.DocTestRunner().run(test).failed


def find_command(words: list[str]) -> tuple[click.Command, list[str]] | None:
    """The command that words after `kedro` call, and its arguments; None for a group by itself."""
    from kedro.framework.cli.catalog import catalog
    from kedro.framework.cli.project import run
    from kedro.framework.cli.registry import registry
    from kedro_viz.launchers.cli.main import viz_cli

    from vmnet_pipeline.cli import cli

    viz = viz_cli.get_command(click.Context(viz_cli), "viz")
    command: click.Command | None = click.Group(
        "kedro", {**cli.commands, "catalog": catalog, "registry": registry, "run": run, "viz": viz}
    )
    words = list(words)
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        command = command.get_command(click.Context(command), words.pop(0))
        assert command is not None, "there is no such command"
    return None if isinstance(command, click.Group) else (command, words)


def check_kedro(words: list[str], added: set[str]) -> None:
    found = find_command(words)
    if found is None:
        return
    command, arguments = found
    context = click.Context(command)
    try:
        values, _, _ = command.make_parser(context).parse_args(args=[word for word in arguments if word != "..."])
    except click.BadOptionUsage as error:
        if error.option_name == arguments[-1]:
            return  # the text speaks of an option and leaves its value out
        raise
    if command.name == "run":
        check_params(str(values.get("params") or ""), added)
        check_pipelines([values.get("pipeline"), *str(values.get("pipelines") or "").split(",")])


def check_pipelines(names: list[str | None]) -> None:
    from vmnet_pipeline.pipeline_registry import register_pipelines

    known = {*register_pipelines(), "extract_loudness"}
    for name in names:
        assert not name or name.isupper() or "$" in name or "VARIANT" in name or name in known, f"no pipeline {name}"


def list_parameters() -> dict[str, type[BaseModel] | None]:
    """First part of each name that `--params` takes, with its model where it has parts."""
    page = runpy.run_path(str(ROOT / "docs/make_parameters.py"))
    return {**dict.fromkeys(page["find_flat_names"]()), **page["SECTIONS"], **page["find_backend_models"]()}


def check_params(text: str, added: set[str]) -> None:
    known = list_parameters()
    for pair in filter(None, re.split(r",(?![^\[]*\])", text)):
        name = pair.partition("=")[0].strip()
        if name in ("NAME", "..."):
            continue
        first, *rest = name.split(".")
        assert first in known, f"there is no parameter {name}"
        model = known[first]
        for part in rest:
            assert model is not None, f"{first} has no parts"
            assert part in model.model_fields or part in added, f"there is no parameter {name}"
            if part in added:
                break
            kinds = (model.model_fields[part].annotation, *getattr(model.model_fields[part].annotation, "__args__", ()))
            model = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)


def check_python(words: list[str]) -> None:
    if words[:1] == ["-m"] or words[:1] == ["-c"]:
        return
    text = (ROOT / words[0]).read_text(encoding="utf-8")
    for option in (word for word in words[1:] if word.startswith("--")):
        assert f'"{option.partition("=")[0]}"' in text, f"{words[0]} has no option {option}"


def find_added(page: Path) -> set[str]:
    """Parameters that a page tells how to add."""
    fragments = "".join(block.text for block in find_blocks(page, "python") if page.name in FRAGMENTS)
    return set(re.findall(r"^    (\w+): .*= Field\(", fragments, re.MULTILINE))


def check_command(line: str, added: set[str]) -> None:
    words = shlex.split(re.sub(r"\$\(.*?\)", "SHELL", line))
    if words[0].startswith("-"):
        return  # the rest of a call that another program makes
    if words[0] in ("kedro", "vmnet-pipeline"):
        check_kedro(words[1:], added)
    elif words[0] == "make":
        targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
        assert {word for word in words[1:] if "=" not in word and word != "..."} <= targets
    elif words[0] in ("python", "python3"):
        check_python(words[1:])
    else:
        assert words[0] in OTHER_PROGRAMS, f"{words[0]} is not known here; add it to OTHER_PROGRAMS if it is right"


@pytest.mark.parametrize("page", [page for page in PAGES if find_commands(page)], ids=name_page)
def test_commands_of_a_page_exist_with_their_options_and_parameters(page):
    faults = []
    for line in find_commands(page):
        try:
            check_command(line, find_added(page))
        except (AssertionError, click.ClickException, OSError, ValueError) as error:
            faults.append(f"{line}\n    {error}")
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("page", [page for page in PAGES if find_blocks(page, "yaml")], ids=name_page)
def test_settings_of_a_page_are_valid(page):
    known = list_parameters()
    for block in find_blocks(page, "yaml"):
        for name, value in (yaml.safe_load(block.text) or {}).items():
            if known.get(name) is not None and isinstance(value, dict):
                known[name].model_validate(value)


def test_addresses_of_the_service_exist():
    source = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "src/vmnet_pipeline/serving").glob("*.py"))
    routes = {re.sub(r"\{\w+\}", "ID", route) for route in re.findall(r'@app\.(?:get|post)\(\s*"([^"]+)"', source)}
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    shown = re.findall(r"(?::8321|`GET |`POST )(/[a-z]\w*(?:/\w+)*)", text)
    assert len(shown) > 8
    assert {re.sub(r"/[A-Z]+(?=/|$)", "/ID", address) for address in shown} <= routes


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_first_run_goes_as_its_page_says(demo_project, tmp_path):
    """Its commands on a copy of the small demo, but for those that wait for a person and the long comparison."""
    folder = shutil.copytree(demo_project.folder, tmp_path / "project", symlinks=True)
    project = replace(demo_project, folder=Path(folder))
    clip = sorted((project.folder / "data/01_raw/demo/video").iterdir())[0].name
    text = "".join(block.text for block in find_blocks(DOCS / "first-run.md", "bash")).replace("0001.mp4", clip)
    lines = re.findall(r"^kedro ((?:run|features|registry|recommend).*)$", text, re.MULTILINE)
    outputs = [project.kedro(*shlex.split(line)) for line in lines if "compare" not in line]
    assert len(outputs) == 6
    assert "mismatched" in outputs[2]
    assert "song0001" in outputs[4]
