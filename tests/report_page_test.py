"""The page and the card of a run say what its workdir holds, and what it lacks."""

import json
import re
import shlex
import shutil
import sys
import types

import numpy as np
import PIL.Image
import pytest

from byol_jax import config as config_lib
from byol_jax import errors, sweeps
from byol_jax.cli import modes
from byol_jax.evaluation import results as results_lib
from byol_jax.evaluation import runner
from byol_jax.reporting import (
  card,
  charts,
  class_tables,
  comparison,
  embedding_map,
  examples,
  facts,
  line_chart,
  markup,
  page,
  projector,
  report,
  summary,
)
from byol_jax.training import saved_settings, sessions
from tests import eval_cases
from tests.eval_cases import RESULT

HEALTH = {
  "verdict": "collapsed",
  "because": "projections vary by 0.01",
  "try": "a lower rate",
  "numbers": {"spread": 0.0123456, "note": "<none>"},
}


def some_facts(**values):
  empty = facts.Facts("run", [], [], {}, {}, {}, [])
  return empty._replace(**values)


def write_rows(workdir, count=3):
  rows = [
    {"step": 10 * i, "train/repr_loss": 4.0 / i, "train/mine": None}
    for i in range(1, count + 1)
  ]
  workdir.mkdir(exist_ok=True)
  text = "".join(json.dumps(row) + "\n" for row in rows)
  (workdir / "metrics.jsonl").write_text(text)


def text_of(path):
  """The words of a page, without its style."""
  body = path.read_text().split("<main>")[1]
  return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", body))


def test_hours_count_each_step_on_the_devices_of_its_session():
  rows = [
    {"step": 10, "train/images_per_second": 4.0},
    {"step": 20, "train/images_per_second": None},
    {"step": 30, "train/images_per_second": 8.0},
  ]
  known = some_facts(
    rows=rows,
    settings={"train.batch_size": 16},
    sessions=[{"step": 0, "devices": 2}, {"step": 20, "devices": 4}],
  )
  assert facts.device_hours(known) * 3600 == pytest.approx(
    10 * 16 / 4 * 2 + 10 * 16 / 8 * 4
  )
  assert facts.device_hours(known._replace(sessions=[])) is None


def test_metrics_stand_beside_baselines_the_paper_and_what_was_expected():
  baseline = RESULT | {"network": "online, untrained", "value": 0.25}
  known = some_facts(
    results={
      "knn/top1": RESULT | {"interval": [0.4, 0.6], "paper": 0.75},
      "baseline/random_knn_top1": baseline,
    },
    settings={"evaluation.expected": ["knn/top1=0.9", "linear/top1=0.8"]},
  )
  assert summary.metrics(known) == (
    ["metric", "BYOL", "untrained", "expected", "paper"],
    [["knn top1", "0.500 [0.400, 0.600]", "0.250", "0.900", "0.750"]],
  )
  assert summary.not_obtained(known) == ["linear/top1 0.800"]


def test_what_an_experiment_expects_is_a_name_and_a_number():
  cfg = config_lib.default_config()
  cfg.evaluation.expected = ("knn/top1=0.9", "linear/top1")
  with pytest.raises(errors.UserError, match="not 'linear/top1'"):
    config_lib.validate(cfg)
  cfg.evaluation.expected = ("knn/top1=0.9",)
  config_lib.validate(cfg)


def test_a_start_is_recorded_beside_earlier_ones(tmp_path, caplog):
  sessions.record(tmp_path, 0)
  sessions.record(tmp_path, 30)
  first, second = sessions.read(tmp_path)
  assert (first["step"], second["step"]) == (0, 30)
  assert first["devices"] == 2
  assert {"python", "jax", "byol_jax"} <= first["versions"].keys()
  assert first["command"] == shlex.join(sys.orig_argv)
  (tmp_path / "sessions.json").write_text('{"sessions": [3]}')
  assert sessions.read(tmp_path) == []
  assert "sessions.json.damaged" in caplog.text
  sessions.record(tmp_path, 60)
  assert [one["step"] for one in sessions.read(tmp_path)] == [60]


def test_ticks_are_round_numbers_inside_the_scale():
  rng = np.random.default_rng(0)
  for low, size in zip(rng.normal(size=200), rng.random(200), strict=True):
    found = line_chart.ticks(low, low + size)
    assert 2 <= len(found) <= 6
    assert low - 1e-9 <= found[0] < found[-1] <= low + size + 1e-9
  assert line_chart.ticks(0, 8) == [0, 2, 4, 6, 8]


def test_numbers_are_short():
  given = (0, 0.5, 0.00025, -3.108e-5, 999.96, 12_500, 2.5e6, 3e9)
  assert [line_chart.number(value) for value in given] == [
    *("0", "0.5", "2.5e-4", "-3.11e-5", "1000", "12.5k", "2.5M", "3G")
  ]
  assert line_chart.number(0.0036, percent=True) == "0.36%"


def test_curves_leave_out_what_is_not_finite_and_draw_constants():
  rows = [{"step": 1, "a": 2.0}, {"step": 2, "a": None}, {"step": 3, "a": 2.0}]
  curve = line_chart.series(rows, "a")
  assert curve.steps.tolist() == [1, 3]
  drawn = line_chart.draw("<a>", [curve])
  assert len(re.findall(r"<polyline", drawn)) == 1
  assert "&lt;a&gt;" in drawn
  assert "nan" not in drawn
  assert line_chart.series(rows, "b") is None
  single = line_chart.draw("a", [line_chart.series(rows[:1], "a")])
  assert "<circle" in single


def test_every_metric_that_was_logged_is_drawn_and_evaluations_over_steps():
  known = some_facts(
    rows=[{"step": 1, "train/tau": 0.9, "diagnostics/rank": 3.0}],
    evaluations=[{"step": s, "knn/top1": 0.1 * s, "x": 1.0} for s in (1, 2)],
  )
  drawn = charts.learning(known)
  for title in ("tau", "diagnostics/rank", "Evaluations", "x"):
    assert f"<b>{title}" in drawn
  assert "<b>BYOL loss" not in drawn
  once = known._replace(evaluations=known.evaluations[:1])
  assert "Evaluations" not in charts.learning(once)


def test_many_points_become_a_smooth_curve_of_few_over_their_raw_values():
  rng = np.random.default_rng(0)
  curve = line_chart.Series("", np.arange(5000.0), rng.normal(size=5000))
  raw, smooth = re.findall(r'points="([^"]*)"', line_chart.draw("a", [curve]))
  heights = [
    np.array([float(point.split(",")[1]) for point in points.split()])
    for points in (raw, smooth)
  ]
  assert len(heights[0]) == len(heights[1]) == 400
  assert heights[1].std() < heights[0].std() / 4


def test_principal_components_are_those_of_the_singular_vectors():
  vectors = np.random.default_rng(0).normal(size=(20, 50)).astype(np.float32)
  points, explained = examples.principal_components(vectors)
  _, values, axes = np.linalg.svd(vectors - vectors.mean(0))
  expected = (vectors - vectors.mean(0)) @ axes[:2].T
  np.testing.assert_allclose(np.abs(points), np.abs(expected), atol=1e-4)
  np.testing.assert_allclose(
    explained, values[:2] ** 2 / np.sum(values**2), rtol=1e-4
  )
  assert np.all(examples.principal_components(vectors[:1])[0] == 0)


def test_many_classes_are_shown_by_the_worst_and_the_most_confused():
  names = [f"class {i}" for i in range(60)]
  confusion = 10 * np.eye(60, dtype=int)
  confusion[7, 9] = 30
  values = np.diag(confusion) / confusion.sum(1)
  found = examples.Classes("top1", 600, 99, values, confusion.sum(1), confusion)
  drawn = class_tables.draw(found, names)
  assert "The 20 worst of 60 classes" in drawn
  assert drawn.count("class=bar>") == 20
  assert "<td>class 9</td><td>30 of 40</td>" in drawn


def test_names_cannot_change_the_page():
  name = "<script>alert(1)</script>"
  found = examples.Map(
    "test",
    np.zeros((2, 4, 4, 1)),
    np.eye(2),
    (0.5, 0.5),
    np.array([0, -1]),
  )
  assert name not in embedding_map.draw(found, [name])
  assert name not in markup.table((name,), [(name, name)])
  known = some_facts(name=name, rows=[{"step": 1, "a": 1.0}])
  assert name not in comparison.draw([known, known._replace(name="b")])


def test_runs_side_by_side_share_charts_and_tell_their_settings():
  one = some_facts(
    name="one",
    rows=[{"step": 1, "train/tau": 0.9}],
    results={"knn/top1": RESULT},
    settings={"ema.base": 0.9, "seed": 0},
  )
  two = one._replace(
    name="two", results={}, settings={"ema.base": 0.5, "seed": 0}
  )
  drawn = comparison.draw([one, two, some_facts(name="three")])
  assert len(re.findall(r"<polyline|<circle", drawn)) == 2
  assert "<td>0.500</td><td>-</td><td>-</td>" in drawn
  assert "ema.base" in drawn
  assert "seed" not in comparison.draw([one, two])
  assert "Neither metrics nor results yet: three." in drawn


SWEEP = sweeps.Sweep(
  experiment="experiments/quickstart.py",
  points={"low": sweeps.Point(0.1, {"ema.base": 0.1}, None)},
  seeds=(0, 1),
  title="Decay",
  axis="tau",
)


def test_a_sweep_without_results_gets_a_page_that_says_so(tmp_path, capsys):
  (tmp_path / sweeps.FILE).write_text(sweeps.to_json(SWEEP))
  (tmp_path / "low/seed_0").mkdir(parents=True)
  write_rows(tmp_path / "low/seed_0")
  options = types.SimpleNamespace(compare=[])
  run = types.SimpleNamespace(workdir=tmp_path)
  modes.MODES["report"](run, options)
  assert "No run has results yet; see log.txt" in capsys.readouterr().out
  words = text_of(tmp_path / page.FILE)
  assert "None of the runs has results yet." in words
  assert "BYOL loss" in words
  assert "Neither metrics nor results yet: low/seed_1." in words


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
  """A run on coloured squares that has not begun."""
  folder = tmp_path_factory.mktemp("prepared")
  cfg = eval_cases.small_config(folder)
  cfg.evaluation.protocols = ("knn",)
  cfg.evaluation.expected = ("knn/top1=0.9",)
  return eval_cases.prepare(folder, cfg)


@pytest.fixture(scope="module")
def finished(prepared):
  """That run, evaluated with baselines, with metrics and one start."""
  workdir = prepared.workdir.with_name("finished")
  run = prepared._replace(workdir=workdir)
  write_rows(workdir)
  runner.evaluate(run, eval_cases.settled_state(run))
  saved_settings.write(workdir, run.config, "")
  sessions.record(workdir, 0)
  return run


@pytest.fixture
def evaluated(finished, tmp_path):
  """A copy of it that a test may change."""
  shutil.copytree(finished.workdir, tmp_path / "run")
  return finished._replace(workdir=tmp_path / "run")


def test_a_report_of_nothing_says_what_is_missing(prepared, tmp_path):
  run = prepared._replace(workdir=tmp_path / "new")
  words = text_of(report.write(run))
  for part in (
    "Nothing is trained yet.",
    "No verdict",
    "No metrics yet",
    "No metrics are logged yet.",
    "--mode=views",
    "No features of such images",
    "No speed is logged yet.",
    "no config.json",
  ):
    assert part in words
  assert [path.name for path in run.workdir.iterdir()] == [page.FILE]


def test_a_report_of_a_run_that_goes_on_shows_what_there_is(prepared, tmp_path):
  run = prepared._replace(workdir=tmp_path / "new")
  write_rows(run.workdir, 2)
  words = text_of(report.write(run))
  assert f"Step 20 of {run.plan.total_steps:,}; the run has not ended." in words
  assert "BYOL loss" in words
  assert "view 2" in words
  assert (run.workdir / "figures/views.png").exists()
  assert "No results yet." in (run.workdir / card.FILE).read_text()


@pytest.mark.slow
def test_classes_and_neighbours_are_those_of_the_evaluation(finished):
  found = examples.gather(finished)
  counts = found.classes.confusion
  result = results_lib.read(finished.workdir)["knn/top1"]
  assert np.trace(counts) / counts.sum() == pytest.approx(result["value"])
  assert counts.sum() == result["examples"] == len(found.map.images)
  neighbours = found.neighbours
  for one in (neighbours.after, neighbours.before):
    assert one.images.shape == (6, 6, 8, 8, 3)
    expected = [
      [name == query for name in row]
      for row, query in zip(one.names, neighbours.names, strict=True)
    ]
    np.testing.assert_array_equal(one.agree, expected)
  assert not np.array_equal(neighbours.after.images, neighbours.before.images)


@pytest.mark.slow
def test_features_of_other_images_are_not_shown(evaluated):
  for about in evaluated.workdir.glob("features/*/about.json"):
    about.write_text(about.read_text().replace("tfrecord", "elsewhere"))
  found = examples.gather(evaluated)
  assert found.map is found.neighbours is found.classes is None


@pytest.mark.slow
def test_the_projector_of_tensorboard_finds_features_images_and_classes(
  evaluated,
):
  projector.write(evaluated)
  folder = evaluated.workdir / "tensorboard"
  config = (folder / "projector_config.pbtxt").read_text()
  paths = dict(re.findall(r'(\w+)_path: "(.+)"', config))
  sides = re.findall(r"single_image_dim: (\d+)", config)
  expected = examples.evaluated(evaluated, 1000)
  vectors = np.loadtxt(folder / paths["tensor"], delimiter="\t")
  np.testing.assert_allclose(vectors, expected.vectors, rtol=1e-5)
  names = (folder / paths["metadata"]).read_text().splitlines()
  assert names == expected.names
  assert len(names) == 31
  with PIL.Image.open(folder / paths["image"]) as sprite:
    assert sprite.size == (6 * 32, 6 * 32)
    second = np.asarray(sprite.crop((32, 0, 64, 32)).resize((8, 8)), float)
  assert sides == ["32", "32"]
  assert np.abs(second / 255 - expected.images[1]).mean() < 0.1


@pytest.mark.slow
def test_the_card_tells_how_a_run_was_made_and_is_used(evaluated):
  report.write(evaluated)
  words = (evaluated.workdir / card.FILE).read_text()
  result = results_lib.read(evaluated.workdir)["knn/top1"]
  assert f"| knn top1 | {result['value']:.3f} [" in words
  assert "| 0.900 |" in words
  assert (
    f"jax {sessions.read(evaluated.workdir)[0]['versions']['jax']}" in words
  )
  assert "encoder_file.load" in words
  assert "| train.batch_size | 8 | 4096 |" in words


def test_a_folder_to_compare_must_be_there(prepared, tmp_path):
  with pytest.raises(errors.UserError, match=r"--compare=.*nowhere"):
    report.write(prepared, [tmp_path / "nowhere"])


@pytest.mark.slow
def test_a_browser_shows_the_page_at_any_width(evaluated):
  """Without errors, requests or sideways scrolling, and with all pictures."""
  sync_api = pytest.importorskip("playwright.sync_api")
  chromium = shutil.which("chromium")
  if not chromium:
    pytest.skip("needs `apt-get install chromium`")
  path = evaluated.workdir / results_lib.FILE
  path.write_text(
    json.dumps({**json.loads(path.read_text()), "health": HEALTH})
  )
  other = evaluated.workdir / ("long_name_of_a_run_" * 5)
  write_rows(other)
  url = report.write(evaluated, [other]).as_uri()
  with sync_api.sync_playwright() as playwright:
    browser = playwright.chromium.launch(executable_path=chromium)
    for width in (390, 1440):
      check_page(
        browser.new_page(viewport={"width": width, "height": 900}), url
      )
    browser.close()


def check_page(tab, url):
  problems, requests = [], []
  tab.on("console", lambda message: problems.append(message.text))
  tab.on("pageerror", lambda error: problems.append(str(error)))
  tab.on("request", lambda request: requests.append(request.url))
  tab.goto(url)
  assert tab.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
  pictures = tab.evaluate(
    "Array.from(document.images, x => x.complete ? x.naturalWidth : 0)"
  )
  assert len(pictures) > 60
  assert all(pictures)
  assert tab.inner_text(".verdict") == HEALTH["verdict"]
  tab.locator(".map circle").first.hover(force=True)
  assert tab.locator(".tip").is_visible()
  assert tab.inner_text(".tip span") in {"0", "1", "2"}
  assert problems == []
  assert [x for x in requests if not x.startswith("data:")] == [url]
