"""A setting that cannot be is one line that says where it is wrong."""

import sys

import pytest
from absl import flags as absl_flags

from byol_jax.cli import flags, overrides


@pytest.mark.parametrize(
  ("setting", "expected"),
  [
    (
      "model.encoder.weights=x",
      "--config.model.encoder.weights=x is unknown; model.encoder has: name, ",
    ),
    (
      "train.batch_sise=3",
      "did you mean --config.train.batch_size? train has: batch_size,",
    ),
    ("optimiser.name=sgd", "did you mean --config.optimizer.name? "),
    ("batch_size=8", "did you mean --config.train.batch_size? "),
    (
      "nosuch.x=1",
      "--config.nosuch.x=1 is unknown; the configuration has: seed",
    ),
    ("train.steps=abc", "wrong type; train.steps must be a whole number."),
    ("train.epochs=1.5", "wrong type; train.epochs must be a whole number."),
    ("ema.base=x", "wrong type; ema.base must be a number."),
    ("train.remat=maybe", "wrong type; train.remat must be True or False."),
    (
      "train=5",
      "--config.train=5 is a section; set one of its keys: batch_size",
    ),
    ("train", "--config.train is a section;"),
    ("augment.view1.hue.x=1", "augment.view1.hue is a value, not a section."),
    ("train.steps.x=1", "train.steps is a value, not a section."),
  ],
)
def test_a_setting_that_cannot_be_names_its_key_and_what_can(setting, expected):
  key, *value = setting.split("=")
  found = overrides.mistake(key, *value or [None])
  assert found.startswith(f"--config.{setting} ")
  assert expected in found
  assert "\n" not in found


@pytest.mark.parametrize(
  "setting",
  [
    "train.steps=7",
    "ema.base=1",
    "train.remat=false",
    "data.mean=()",
    "seed=0x9",
  ],
)
def test_a_setting_that_can_be_is_no_mistake(setting):
  assert overrides.mistake(*setting.split("=")) is None


def test_the_command_line_ends_with_that_line(monkeypatch):
  """Whatever the flag library says of it: for this key, only "'weights'"."""
  argv = [
    "byol_jax",
    "--config=experiments/quickstart.py",
    "--config.seed=3",
    "--config.model.encoder.weights=x",
  ]
  monkeypatch.setattr(sys, "argv", argv)  # The library reads it by itself.
  known = {*absl_flags.FLAGS}
  try:
    with pytest.raises(
      SystemExit, match=r"^Error: --config\.model\.encoder\.we"
    ):
      flags.parse(argv)
  finally:
    absl_flags.FLAGS.unparse_flags()
    for name in {*absl_flags.FLAGS} - known:
      delattr(absl_flags.FLAGS, name)
