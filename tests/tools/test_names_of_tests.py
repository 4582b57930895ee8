"""Tests are found by the module that they test."""

import re
from collections import Counter
from pathlib import Path

TESTS = Path(__file__).parents[1]
PACKAGE = TESTS.parent / "src" / "vmnet_pipeline"
# Of no module: what a project, the pages, the package or an attacker sees, and scripts beside the package.
BEHAVIOUR = {"benchmarks", "compat", "docs", "e2e", "notebooks", "packaging", "tools", "torture"}
STARTERS = ("subprocess", "multiprocessing", "fault_lab", "reference_graph", "serve_process", "toy_bench")
MARKED = ("compat/", "e2e/", "notebooks/", "packaging/", "serving/")
# Of every module of its package alike; their names say so: test_all_...
OF_A_WHOLE_PACKAGE = {
    "backends/test_all_on_odd_media.py", "datasets/test_all_keep_the_contract.py", "pipelines/test_all_in_kedro_viz.py",
    "serving/test_all_in_a_container.py", "storage/test_all_survive_kills.py",
}  # fmt: skip


def list_modules(folder):
    """Names of the modules of a package, those of packages below it included, and of these packages."""
    paths = folder.glob("*.py") if folder == PACKAGE else folder.rglob("[!_]*")
    return {path.stem.strip("_") for path in paths}


def names_a_module(name, modules):
    """`test_app.py` and `test_app_requests.py` test app.py."""
    return any(f"{name}_".startswith(f"{module}_") for module in modules)


def list_strays():
    for path in sorted(TESTS.rglob("test_*.py")):
        place = path.relative_to(TESTS)
        package = PACKAGE / place.parent
        name = place.stem.removeprefix("test_")
        if place.parts[0] in BEHAVIOUR or str(place) in OF_A_WHOLE_PACKAGE:
            continue
        modules = list_modules(package)
        if not any(names_a_module(form, modules) for form in (name, name.removeprefix(f"{package.name}_"))):
            yield str(place)


def test_a_file_of_tests_names_a_module_of_its_package():
    assert list(list_strays()) == []


def test_no_two_files_of_tests_have_one_name():
    """pytest imports them by their name alone."""
    names = Counter(path.name for path in TESTS.rglob("test_*.py"))
    assert [name for name, n in names.items() if n > 1] == []


def test_exceptions_are_files():
    assert [place for place in sorted(OF_A_WHOLE_PACKAGE) if not (TESTS / place).exists()] == []


def test_what_starts_processes_says_so():
    """A module that speaks of processes has the marker somewhere; whole folders have it from conftest.py."""
    found = []
    for path in sorted(TESTS.rglob("test_*.py")):
        text = path.read_text(encoding="utf-8")
        if re.search(rf"^(import|from) ({'|'.join(STARTERS)})\b", text, re.M):
            found += [str(path.relative_to(TESTS))] * ("mark.process" not in text)
    assert [place for place in found if not place.startswith(MARKED)] == []
