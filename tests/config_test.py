"""The configuration: locked, complete, and checked before any work."""

import pytest

from byol_jax import config, errors


def test_the_default_is_the_papers_main_run():
  default = config.default_config()
  config.validate(default)
  assert default.train.batch_size == 4096
  assert default.optimizer.base_learning_rate == 0.2
  assert default.optimizer.weight_decay == 1.5e-6
  assert default.ema.base == 0.996
  assert default.model.encoder.zero_init_last_scale is False
  view1, view2 = default.augment.view1, default.augment.view2
  assert (view1.blur_prob, view1.solarize_prob) == (1.0, 0.0)
  assert (view2.blur_prob, view2.solarize_prob) == (0.1, 0.2)
  different = {name for name in view1 if view1[name] != view2[name]}
  assert different == {"blur_prob", "solarize_prob"}


def test_a_misspelt_key_names_the_close_one():
  default = config.default_config()
  with pytest.raises(AttributeError, match="batch_size"):
    default.train.batch_sise = 32


@pytest.mark.parametrize(
  ("key", "value"),
  [
    ("train.batch_size", 0),
    ("train.steps", 0),
    ("data.image_size", -1),
    ("data.eval_crop", 1.5),
    ("train.microbatches", 0),
    ("ema.base", 1.1),
    ("ema.base_batch_size", 0),
    ("optimizer.momentum", 1.0),
    ("optimizer.weight_decay", -1e-6),
    ("model.encoder.width", 0.0),
    ("augment.view1.blur_prob", 1.5),
    ("augment.view2.hue", 0.6),
    ("augment.view2.crop_area", (0.5, 1.5)),
    ("augment.view1.crop_aspect", (2.0, 1.0)),
    ("evaluation.holdout", 1.0),
    ("evaluation.view.flip_prob", 1.5),
    ("evaluation.linear.crops", "center"),
    ("evaluation.linear.learning_rates", (0.1, 0.0)),
    ("evaluation.logistic.l2_range", (0.0, 1.0)),
    ("data.fraction", 0.0),
    ("data.std", ("a", "b", "c")),
    ("evaluation.linear.learning_rates", ("abc",)),
    ("checkpoint.keep", 0),
    ("checkpoint.keep_every", -1),
    ("log.every_steps", 0),
  ],
)
def test_an_impossible_value_is_named_with_its_rule(key, value):
  changed = config.default_config()
  changed.update_from_flattened_dict({key: value})
  with pytest.raises(errors.UserError) as caught:
    config.validate(changed)
  message = str(caught.value)
  assert message.startswith(f"{key}={value}")
  assert "must" in message
  assert "\n" not in message
