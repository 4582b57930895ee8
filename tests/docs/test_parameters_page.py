import runpy
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_of_parameters_is_in_step_with_the_models():
    page = runpy.run_path(str(DOCS / "make_parameters.py"))["make_page"]()
    assert page == (DOCS / "parameters.md").read_text(), "run `python docs/make_parameters.py`"
    assert "| `train.loss.margin` |" in page
