"""The tutorial runs from top to bottom, and is stored with its outputs."""

import pytest

from tests import command_line

nbformat = pytest.importorskip("nbformat", reason="the extra docs is not there")
nbclient = pytest.importorskip("nbclient", reason="the extra docs is not there")

PATH = command_line.ROOT / "docs" / "tutorial.ipynb"


def code_cells(notebook):
  return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_it_is_stored_with_the_outputs_of_one_run():
  assert PATH.stat().st_size < 1_000_000
  cells = code_cells(nbformat.read(PATH, as_version=4))
  assert [cell.execution_count for cell in cells] == [*range(1, len(cells) + 1)]
  kinds = [output.output_type for cell in cells for output in cell.outputs]
  assert "display_data" in kinds
  assert "error" not in kinds


@pytest.mark.slow
def test_all_its_cells_run(digits_dir, monkeypatch):
  """In a few steps: what it shows is that of a run of full length."""
  monkeypatch.setenv("TUTORIAL_STEPS", "4")
  monkeypatch.setenv("PYTHONPATH", str(command_line.ROOT))
  monkeypatch.setenv("TFDS_DATA_DIR", digits_dir)
  notebook = nbformat.read(PATH, as_version=4)
  for cell in code_cells(notebook):
    cell.outputs = []
  nbclient.NotebookClient(notebook, timeout=None).execute()
  (figures,) = {
    sum(
      "image/png" in x.get("data", {}) for c in code_cells(n) for x in c.outputs
    )
    for n in (notebook, nbformat.read(PATH, as_version=4))
  }
  assert figures >= 5
