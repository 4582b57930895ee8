"""Files about the project say what is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from vmnet_pipeline import __version__

ROOT = Path(__file__).parents[2]
MAKEFILE = (ROOT / "Makefile").read_text()


def read_yaml(name: str):
    return yaml.safe_load((ROOT / name).read_text())


def test_the_citation_is_of_this_version():
    citation = read_yaml("CITATION.cff")
    assert citation["version"] == __version__
    assert citation["license"] == "Apache-2.0"


@pytest.mark.parametrize(
    "name", [".github/workflows/ci.yml", "CONTRIBUTING.md", "README.md", "SECURITY.md", "docs/installing.md"]
)
def test_make_targets_that_are_named_exist(name):
    targets = {*re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE)}
    calls = re.findall(r"(?:`|^|run: |&& )make((?: +[A-Z]+=\S+| +[a-z-]+\b)+)", (ROOT / name).read_text(), re.MULTILINE)
    named = {word for call in calls for word in call.split() if "=" not in word}
    assert named
    assert named <= targets


def test_the_notice_names_every_set_of_weights_and_its_licence():
    notice = (
        (ROOT / "NOTICE")
        .read_text()
        .replace("efficientnet-b0 ... efficientnet-b7", " ".join(f"efficientnet-b{n}" for n in range(8)))
    )
    for name, entry in read_yaml("conf/base/weights.yml").items():
        (line,) = [line for line in notice.splitlines() if re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", line)]
        assert entry["licence"] in line


def test_hooks_before_a_commit_fetch_nothing_and_run_what_lint_runs():
    (repository,) = read_yaml(".pre-commit-config.yaml")["repos"]
    assert repository["repo"] == "local"
    for hook in repository["hooks"]:
        assert hook["language"] == "system"
        tool = hook["entry"].split()[0].removeprefix(".venv/bin/")
        assert tool in re.findall(r"\$\(BIN\)/([\w-]+)", MAKEFILE)


def test_issue_forms_have_the_parts_that_a_forge_asks_for():
    for path in (ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"):
        form = yaml.safe_load(path.read_text())
        if path.name == "config.yml":
            continue
        assert form["name"]
        assert form["description"]
        ids = [part["id"] for part in form["body"] if part["type"] != "markdown"]
        assert len(ids) == len(set(ids)) >= 2
        assert all(part["attributes"].get("label") or part["type"] == "markdown" for part in form["body"])
