"""Pictures show the data that a workdir has."""

import pathlib
import subprocess
import sys
import types

import numpy as np
import pytest
from matplotlib import figure, image

from byol_jax import errors
from byol_jax.reporting import curves, neighbours, report, views


@pytest.fixture
def drawn(monkeypatch):
  """The figures that were saved, for inspection."""
  figures = []
  save = figure.Figure.savefig

  def remember(self, *args, **kwargs):
    figures.append(self)
    return save(self, *args, **kwargs)

  monkeypatch.setattr(figure.Figure, "savefig", remember)
  return figures


def _rows(count):
  rng = np.random.default_rng(0)
  return [
    {
      "step": 10 * (i + 1),
      "train/repr_loss": 2 + rng.normal(),
      "train/top1_accuracy": 0.25,
      "train/top5_accuracy": 0.5,
      "train/tau": 0.99,
      "train/learning_rate": 0.1,
    }
    for i in range(count)
  ]


@pytest.mark.parametrize("count", [0, 1, 2, 200])
def test_curves_are_1200_pixels_wide_with_any_number_of_rows(tmp_path, count):
  curves.draw(_rows(count), tmp_path / "curves.png", 16)
  assert image.imread(tmp_path / "curves.png").shape == (800, 1200, 4)


def test_missing_and_null_metrics_leave_out_points(tmp_path, drawn):
  rows = [
    {"step": 10, "train/repr_loss": 3.0},
    {"step": 20, "train/repr_loss": None},
    {"step": 30},
  ]
  curves.draw(rows, tmp_path / "curves.png")
  loss, accuracy, *_ = drawn[0].axes
  assert loss.lines[0].get_xydata().tolist() == [[10, 3]]
  assert accuracy.texts[0].get_text() == "nothing logged yet"


def test_raw_values_stay_visible_behind_the_smoothed_ones(tmp_path, drawn):
  rows = _rows(200)
  curves.draw(rows, tmp_path / "curves.png")
  raw, smoothed = (line.get_ydata() for line in drawn[0].axes[0].lines)
  np.testing.assert_array_equal(raw, [row["train/repr_loss"] for row in rows])
  assert smoothed.std() < raw.std() / 2
  assert smoothed[100] == pytest.approx(raw[96:105].mean())
  assert smoothed[0] == pytest.approx(raw[:5].mean())


def test_panels_say_what_they_show(tmp_path, drawn):
  curves.draw(_rows(3), tmp_path / "curves.png", steps_per_epoch=5)
  titles = " ".join(panel.get_title() for panel in drawn[0].axes)
  for words in ("range 0 to 8", "online classifier", "tau", "Learning rate"):
    assert words in titles
  (epochs,) = drawn[0].axes[0].child_axes
  assert epochs.get_xlim()[1] == drawn[0].axes[0].get_xlim()[1] / 5


def test_views_stand_beside_originals_of_any_size_and_type(tmp_path, drawn):
  originals = [np.zeros((30, 40, 3), np.uint8), np.ones((9, 8, 3), np.float32)]
  view1 = np.full((2, 6, 6, 3), 0.25, np.float32)
  view2 = np.full((2, 6, 6, 3), 0.75, np.float32)
  settings = {
    "view1": {"crop_area": (0.08, 1.0), "blur_prob": 1.0},
    "view2": {"crop_area": (0.08, 1.0), "blur_prob": 0.1},
  }
  views.draw(originals, view1, view2, tmp_path / "views.png", settings)
  panels = np.reshape(drawn[0].axes, (2, 3))
  for row, panel_row in enumerate(panels):
    expected = (originals[row], view1[row], view2[row])
    for panel, pixels in zip(panel_row, expected, strict=True):
      np.testing.assert_array_equal(panel.images[0].get_array(), pixels)
  titles, tables = (
    [text.get_text() for text in part.texts] for part in drawn[0].subfigs
  )
  assert titles == ["original", "view 1", "view 2"]
  shared, different = tables
  assert shared.split("\n")[1:] == ["crop_area  0.08 to 1"]
  assert different.split("\n")[1].split() == ["blur_prob", "1", "0.1"]


def test_damaged_neighbours_are_one_line_with_a_remedy(tmp_path):
  path = tmp_path / "neighbours.npz"
  np.savez(path, queries=np.arange(1000))
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 1
  path.write_bytes(data)
  run = types.SimpleNamespace(workdir=tmp_path)
  with pytest.raises(errors.UserError, match=r"CRC-32.*delete it") as info:
    neighbours.write(run)
  assert str(path) in str(info.value)
  assert "\n" not in str(info.value)


@pytest.mark.parametrize("labelled", [False, True])
def test_neighbours_stand_beside_their_image(tmp_path, drawn, labelled):
  rng = np.random.default_rng(0)
  queries, images = rng.random((2, 6, 6, 3)), rng.random((2, 3, 6, 6, 3))
  cosines = np.array([[0.9, 0.8, 0.7, 0.6], [0.5, 0.4, 0.3, 0.2]])
  agree = np.array([[True, False, True], [False, True, True]])
  neighbours.draw(
    queries,
    images,
    cosines,
    tmp_path / "neighbours.png",
    agree if labelled else None,
  )
  panels = np.reshape(drawn[0].axes, (2, 4))
  for row, (panel, *others) in enumerate(panels):
    np.testing.assert_array_equal(panel.images[0].get_array(), queries[row])
    for i, other in enumerate(others):
      np.testing.assert_array_equal(other.images[0].get_array(), images[row, i])
      assert other.get_title() == f"{cosines[row, i]:.3f}"
      frame = other.spines["left"]
      assert frame.get_visible() == labelled
      if labelled:
        red, green, _, _ = frame.get_edgecolor()
        assert (green > red) == agree[row, i]
  captions = " ".join(text.get_text() for text in drawn[0].texts)
  assert "cosine" in captions
  assert ("red" in captions) == labelled


def test_class_names_stand_below_the_images(tmp_path, drawn, recwarn):
  images = np.zeros((1, 2, 6, 6, 3))
  names = [["$a$b", "漢字", "c"]]
  neighbours.draw(
    images[:, 0],
    images,
    np.ones((1, 2)),
    tmp_path / "neighbours.png",
    np.ones((1, 2), bool),
    names,
  )
  assert [panel.get_xlabel() for panel in drawn[0].axes] == names[0]
  assert not recwarn.list


def test_a_class_is_named_in_a_few_letters_of_one_line():
  classes = ["cat", "n01440764 tench, Tinca", "a\nb"]

  def text(label):
    return neighbours._class_text(np.array(label), classes)

  assert text(0) == "cat"
  assert text(1) == "n01440764 ten…"
  assert text(2) == "a b"
  assert text([1, 0, 1]) == "cat, a b"
  assert text(-1) == text([0, 0, 0]) == ""


@pytest.fixture
def run(tmp_path):
  """A run that has logged one row, as far as curves need one."""
  (tmp_path / "metrics.jsonl").write_text('{"step": 10, "train/tau": 0.9}\n')
  return types.SimpleNamespace(
    workdir=tmp_path, plan=types.SimpleNamespace(steps_per_epoch=2.0)
  )


def test_the_pictures_are_those_whose_data_is_there(run, monkeypatch):
  written = []
  monkeypatch.setattr(
    report,
    "FIGURES",
    report.FIGURES
    | {
      "new": report.Figure(lambda run: True, written.append),
      "newer": report.Figure(lambda run: False, written.append),
    },
  )
  report.write_figures(run)
  assert written == [run]
  (path,) = (run.workdir / "figures").iterdir()
  assert path.name == "curves.png"


def test_an_unwritable_picture_is_one_line_with_what_to_do(run):
  (run.workdir / "figures").touch()
  with pytest.raises(errors.UserError, match=r"curves\.png: .*--mode=report"):
    curves.write(run)


@pytest.mark.slow
def test_drawing_needs_no_display(tmp_path, monkeypatch):
  """Not even where matplotlib is configured to open windows."""
  monkeypatch.setenv("MPLBACKEND", "tkagg")
  monkeypatch.delenv("DISPLAY", raising=False)
  draw = (
    "import sys; from byol_jax.reporting import curves;"
    " curves.draw([], *sys.argv[1:])"
  )
  subprocess.run(
    [sys.executable, "-c", draw, tmp_path / "curves.png"],
    check=True,
    cwd=pathlib.Path(__file__).parent.parent,
  )
  assert (tmp_path / "curves.png").exists()
