"""The tutorial runs from top to bottom, and shows what its text says."""

import json

import pytest

from tests import command_line

nbformat = pytest.importorskip("nbformat", reason="the extra docs is not there")
nbclient = pytest.importorskip("nbclient", reason="the extra docs is not there")

PATH = command_line.ROOT / "docs" / "tutorial.ipynb"


@pytest.fixture
def notebook():
  return nbformat.read(PATH, as_version=4)


def code_cells(notebook):
  return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_it_is_valid_stored_without_outputs_and_compiles(notebook):
  nbformat.validate(notebook)
  cells = code_cells(notebook)
  assert len(cells) > 5
  for cell in cells:
    assert cell.outputs == []
    assert cell.execution_count is None
    compile(cell.source, cell.id, "exec")


@pytest.mark.slow
def test_it_learns_searches_and_collapses_as_it_says(
  notebook, tmp_path, digits_dir, monkeypatch
):
  monkeypatch.setenv("PYTHONPATH", str(command_line.ROOT))
  monkeypatch.setenv("TFDS_DATA_DIR", digits_dir)
  # What the next cell prints are the variables of the cells above it.
  found = nbformat.v4.new_code_cell(
    "print(json.dumps({'accuracy': accuracy, 'table': table,"
    " 'losses': three_losses.tolist(), 'target_gradient': target_gradient,"
    " 'weight': weight,"
    " 'hits': float(np.mean(bank.labels[nearest] == queries.labels[:, None]))}))"
  )
  notebook.cells.append(found)
  nbclient.NotebookClient(
    notebook, timeout=None, resources={"metadata": {"path": tmp_path}}
  ).execute()

  values = json.loads(found.outputs[0].text)
  for trained, untrained, _ in values["accuracy"].values():
    assert trained > untrained
  assert values["table"]["verdict"] == ["healthy", "collapsed"]
  of_byol, of_collapsed = map(float, values["table"]["last loss"])
  assert of_collapsed < of_byol
  assert values["hits"] > 0.5  # By chance, 0.1.
  assert values["losses"] == pytest.approx([0, 2, 4], abs=1e-5)
  assert values["target_gradient"] == 0
  assert values["weight"] == pytest.approx(1 - 0.9**10)
  pictures = [
    output
    for cell in code_cells(notebook)
    for output in cell.outputs
    if "image/png" in output.get("data", {})
  ]
  assert len(pictures) == 3
