"""The notebooks run from top to bottom on a small collection, and are stored without what they put out."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import nbformat
import pytest
from jupyter_client import KernelManager
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(path.name for path in FOLDER.glob("*.ipynb"))


def read_notebook(name):
    return nbformat.read(FOLDER / name, as_version=4)


def list_code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_nothing_is_stored_that_a_run_put_out(name):
    notebook = read_notebook(name)
    nbformat.validate(notebook)
    assert all(cell.outputs == [] and cell.execution_count is None for cell in list_code(notebook))
    assert "execution" not in (FOLDER / name).read_text().replace('"execution_count"', "")
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert notebook.cells[0].source.startswith("# ")


@pytest.fixture(scope="module")
def folder(demo_project):
    """The notebooks beside the data of a project."""
    target = demo_project.folder / "notebooks"
    shutil.copytree(FOLDER, target, dirs_exist_ok=True)
    return target


@pytest.fixture(scope="module")
def kernel(folder):
    """One for all notebooks, as most of the time goes into imports; each begins with an empty namespace."""
    manager = KernelManager(kernel_name="python3")
    path = os.pathsep.join([str(folder.parent / "src"), os.environ.get("PYTHONPATH", "")])
    manager.start_kernel(cwd=str(folder), env={**os.environ, "PYTHONPATH": path})
    yield manager
    manager.shutdown_kernel(now=True)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_it_runs_and_shows_something(name, folder, kernel):
    notebook = read_notebook(name)
    before = sorted(path.name for path in folder.iterdir())
    notebook.cells.insert(0, new_code_cell(f"%reset -f\nimport os\nos.chdir({str(folder)!r})"))
    NotebookClient(notebook, km=kernel, timeout=300).execute()
    kinds = [kind for cell in list_code(notebook) for output in cell.outputs for kind in output.get("data", {})]
    assert kinds.count("image/png") >= 2
    assert "text/html" in kinds  # a table or a player
    errors = [output.text for cell in list_code(notebook) for output in cell.outputs if output.get("name") == "stderr"]
    assert not [text for text in errors if "Warning" in text or "ERROR" in text], errors
    assert sorted(path.name for path in folder.iterdir()) == before  # no database or data of its own
