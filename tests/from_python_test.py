"""Training from Python as docs/from_python.md shows it, in a thread and a loop."""

import asyncio
import json
import threading
import types

import jax
import numpy as np
import pytest

from byol_jax.models import encoders
from byol_jax.runtime import devices
from byol_jax.training import build, plan, runs
from tests import command_line, network_cases, pages

# Smaller and shorter than the page's run.
TINY = """
settings.data.data_dir = {data_dir!r}
settings.data.image_size = 16
settings.model.encoder.name = "TinyResNet"
settings.model.encoder.width = 0.5
settings.train.batch_size = 32
settings.train.steps = 3
settings.train.compilation_cache = ""
settings.log.every_steps = 1
settings.log.diagnose = False
settings.evaluation.protocols = ("knn",)
settings.evaluation.baselines = False
"""


def python_blocks():
  page = (command_line.ROOT / "docs" / "from_python.md").read_text()
  return [x for x in pages.code(page) if "jupyter lab" not in x]


@pytest.mark.slow
def test_the_page_trains_in_a_thread_with_a_running_loop(
  tmp_path, digits_dir, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  training, *others = python_blocks()
  before, opened, after = training.partition("run = ")
  names = {}

  async def work():  # A notebook runs its cells inside such a loop.
    exec(before + TINY.format(data_dir=digits_dir) + opened + after, names)
    names["trained"] = names["state"], names["was_finished"]
    for block in others:
      exec(block, names)

  thread = threading.Thread(target=lambda: asyncio.run(work()))
  thread.start()
  thread.join()
  state, was_finished = names["trained"]
  assert int(state.step) == 3
  assert not was_finished
  workdir = tmp_path / "runs" / "from_python"
  log = (workdir / "metrics.jsonl").read_text()
  rows = [json.loads(line) for line in log.splitlines()]
  assert [row["step"] for row in rows] == [1, 2, 3]
  (session,) = json.loads((workdir / "sessions.json").read_text())["sessions"]
  assert session["step"] == 0
  results = json.loads((workdir / "results.json").read_text())
  assert names["results"]["knn/top1"] == results["knn/top1"]

  images = np.zeros((2, 16, 16, 3), np.uint8)
  assert np.all(np.isfinite(names["encoder"].encode(images)))
  assert np.isfinite(names["metrics"]["loss"])
  assert names["update"]._cache_size() == 1  # It is compiled once.


def test_a_loop_of_ones_own_compiles_the_update_once(monkeypatch):
  """As on the page, on all devices that the tests have."""
  monkeypatch.setitem(encoders.ENCODERS, "Patches", network_cases.PATCHES)
  settings = network_cases.settings_of_patches({})
  plans = plan.make_plan(settings, 256)
  learner = build.build_learner(settings, plans, 10)
  source = types.SimpleNamespace(num_classes=10)
  run = runs.Run(settings, None, source, plans, learner)
  images = np.random.RandomState(0).rand(2, 8, 8, 8, 3).astype(np.float32)
  examples = {"view1": images[0], "view2": images[1], "label": np.zeros(8, int)}
  state = run.initial_state()
  update = jax.jit(run.learner.update)
  for batch in devices.prefetch([examples] * 3):
    batch = jax.tree.map(lambda x: x[0], batch)
    state, metrics = update(state, batch)
  assert np.isfinite(metrics["loss"])
  assert update._cache_size() == 1
