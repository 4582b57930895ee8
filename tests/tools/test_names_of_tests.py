"""Tests are found by the module that they test."""

import re
from collections import Counter
from pathlib import Path

TESTS = Path(__file__).parents[1]
PACKAGE = TESTS.parent / "src" / "vmnet_pipeline"
# Of no module: what a project, the pages, the package or an attacker sees.
BEHAVIOUR = {"compat", "docs", "e2e", "notebooks", "packaging", "tools", "torture"}
STARTERS = ("subprocess", "multiprocessing", "fault_lab", "reference_graph", "serve_process", "toy_bench")
MARKED = ("compat/", "e2e/", "notebooks/", "packaging/", "serving/")
# Of several modules of their package, by what they hold.
ACROSS_MODULES = {
    "backends/test_extract_command.py", "backends/test_odd_media.py", "backends/test_player_view.py",
    "commands/test_names.py", "commands/test_telemetry.py", "datasets/test_contract.py",
    "ingestion/test_found_names.py", "media/test_tracks.py", "params/test_names_as_written.py",
    "pipelines/test_embed_index.py", "pipelines/test_kedro_viz.py", "reporting/test_logged_figures.py",
    "reporting/test_report_inputs.py", "reporting/test_report_parts.py", "reporting/test_sweep_reports.py",
    "serving/test_attacks.py", "serving/test_container.py", "serving/test_ends.py", "serving/test_keys.py",
    "serving/test_log.py", "serving/test_openapi.py", "serving/test_page.py", "serving/test_requests.py",
    "serving/test_reranked_search.py",
    "serving/test_serve_command.py", "storage/test_kills.py", "test_docstring_examples.py",
    "test_examples.py", "test_patterns.py",
    "training/test_cuda.py", "training/test_cuda_configuration.py", "training/test_sequence_training.py",
    "training/test_tensorflow_arithmetic.py",
}  # fmt: skip


def list_modules(folder):
    """Names of the modules of a package, those of packages below it included."""
    paths = folder.glob("*.py") if folder == PACKAGE else folder.rglob("*.py")
    return {path.stem.strip("_") for path in paths}


def list_strays():
    for path in sorted(TESTS.rglob("test_*.py")):
        place = path.relative_to(TESTS)
        package = PACKAGE / place.parent
        name = place.stem.removeprefix("test_")
        if place.parts[0] in BEHAVIOUR or str(place) in ACROSS_MODULES:
            continue
        if not {name, name.removeprefix(f"{package.name}_")} & list_modules(package):
            yield str(place)


def test_a_file_of_tests_names_a_module_of_its_package():
    assert list(list_strays()) == []


def test_no_two_files_of_tests_have_one_name():
    """pytest imports them by their name alone."""
    names = Counter(path.name for path in TESTS.rglob("test_*.py"))
    assert [name for name, n in names.items() if n > 1] == []


def test_exceptions_are_files():
    assert [place for place in sorted(ACROSS_MODULES) if not (TESTS / place).exists()] == []


def test_what_starts_processes_says_so():
    """A module that speaks of processes has the marker somewhere; whole folders have it from conftest.py."""
    found = []
    for path in sorted(TESTS.rglob("test_*.py")):
        text = path.read_text(encoding="utf-8")
        if re.search(rf"^(import|from) ({'|'.join(STARTERS)})\b", text, re.M):
            found += [str(path.relative_to(TESTS))] * ("mark.process" not in text)
    assert [place for place in found if not place.startswith(MARKED)] == []
