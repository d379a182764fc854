"""The configuration: locked, complete, and checked before any work."""

import math
import typing

import pytest

from byol_jax import config, errors
from byol_jax.augment import spec
from byol_jax.augment.presets import PRESETS
from byol_jax.config import convert, presets, schema


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
    ("data.root", "gs://bucket/images"),
    ("evaluation.root", "s3://bucket/images.npz"),
    ("data.image_size", -1),
    ("data.image_width", -1),
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


NUMBERS = {
  key: kind
  for key, kind in convert.key_types(schema.Config).items()
  if kind not in (str, bool) and "str" not in str(kind)
}
VIEWS = ("augment.view1", "augment.view2")
PROBABILITIES = [
  f"{view}.{name}_prob"
  for view in VIEWS
  for name in (*spec.OPS, "vertical_flip", "rotate90")
]
AMOUNTS = [
  f"{view}.{name}"
  for view in VIEWS
  for name in ("brightness", "contrast", "saturation", "hue")
]
# The keys that each of these numbers is right for, whatever the data; every other
# key has to refuse it.
RIGHT = {
  math.nan: [],
  math.inf: [],
  -math.inf: [],
  -1: ["data.mean"],
  0: [
    *PROBABILITIES,
    *AMOUNTS,
    "evaluation.view.flip_prob",
    "seed",
    "data.mean",
    "data.test_share",
    "data.max_broken",
    "data.image_size",
    "data.image_width",
    "data.cache_bytes",
    "data.parts",
    "data.copy_side",
    "data.decode_side",
    "data.threads",
    "data.prefetch",
    "model.encoder.patch",
    "model.batch_norm.decay_rate",
    "model.batch_norm.group_size",
    "ema.base",
    "ema.half_life",
    "loss.beta",
    "loss.relic",
    "optimizer.base_learning_rate",
    "optimizer.weight_decay",
    "optimizer.momentum",
    "optimizer.warmup_epochs",
    "optimizer.clip",
    "optimizer.projector_rate",
    "optimizer.predictor_rate",
    "train.check_replicas_every",
    "train.hang_seconds",
    "evaluation.every_epochs",
    "evaluation.finetune.decay_count",
    "checkpoint.every_seconds",
    "checkpoint.every_steps",
    "checkpoint.keep_every",
    "log.diagnose_every",
  ],
  # Useless, but no harm is done before the loss shows it.
  10**30: [
    "data.mean",
    "data.std",
    "model.batch_norm.eps",
    "loss.alpha",
    "loss.beta",
    "loss.relic",
    "ema.half_life",
    "optimizer.base_learning_rate",
    "optimizer.weight_decay",
    "optimizer.trust_coefficient",
    "optimizer.clip",
    "optimizer.projector_rate",
    "optimizer.predictor_rate",
    "model.predictor.ridge",
    "optimizer.warmup_epochs",  # `plan.make_plan` counts its steps.
    *(f"{view}.crop_aspect" for view in (*VIEWS, "evaluation.view")),
    *(f"{view}.blur_sigma" for view in VIEWS),
    "evaluation.knn.temperature",
    "evaluation.linear.learning_rates",
    "evaluation.logistic.l2_range",
    "evaluation.semi_supervised.labels",
    "evaluation.semi_supervised.learning_rates",
    "evaluation.finetune.rate_range",
    "evaluation.finetune.decay_range",
  ],
  10**400: [],  # More than a float can be.
}


def with_value(key, value):
  """The default configuration with another number; in tuples, the last one."""
  is_tuple = typing.get_origin(NUMBERS[key]) is tuple
  default = convert.value_at(schema.Config(), key)
  changed = (*default[:-1], value) if is_tuple else value
  return convert.updated(schema.Config(), {key: changed})


@pytest.mark.parametrize("value", RIGHT)
@pytest.mark.parametrize("key", NUMBERS)
def test_every_number_has_its_bounds(key, value):
  changed = with_value(key, value)
  if key in RIGHT[value]:
    config.validate(changed)
    return
  with pytest.raises(errors.UserError) as caught:
    config.validate(changed)
  assert str(caught.value).startswith(f"{key}=")
  assert "must" in str(caught.value)


@pytest.mark.parametrize("key", convert.key_types(schema.Config))
@pytest.mark.parametrize("value", [{}, b"x", (None,), ("a", 1), ((1.0,),)])
def test_every_key_has_its_type(key, value):
  with pytest.raises(errors.UserError) as caught:
    config.validate(convert.updated(schema.Config(), {key: value}))
  assert str(caught.value).startswith(f"{key}=")
  assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
  "key",
  [key for key, kind in NUMBERS.items() if typing.get_origin(kind) is tuple],
)
@pytest.mark.parametrize("length", [0, 1, 4])
def test_a_tuple_has_its_length(key, length):
  changed = convert.updated(schema.Config(), {key: (0.5,) * length})
  is_grid = "learning_rates" in key or key.endswith((".labels", ".epochs"))
  if (length == 0 and key.startswith("data.")) or (length and is_grid):
    config.validate(changed)
    return
  with pytest.raises(errors.UserError) as caught:
    config.validate(changed)
  assert str(caught.value).startswith(f"{key}=")


@pytest.mark.parametrize("lacking", [None, {"seed": 1}, schema.DataConfig()])
def test_a_configuration_without_all_keys_is_one_line(lacking):
  with pytest.raises(errors.UserError, match="default_config") as caught:
    config.validate(lacking)
  assert "seed" in str(caught.value)
  assert "\n" not in str(caught.value)


def test_a_best_checkpoint_needs_evaluations_while_training():
  changed = convert.updated(schema.Config(), {"checkpoint.keep_best": True})
  with pytest.raises(
    errors.UserError, match=r"every_epochs, which is 0; set it"
  ):
    config.validate(changed)
  config.validate(convert.updated(changed, {"evaluation.every_epochs": 0.5}))


@pytest.mark.parametrize(
  ("entry", "part"),
  [
    ("erase", "'erase'"),
    ("erase=x", "NAME=PROBABILITY"),
    ("erase=1.1", "NAME=PROBABILITY"),
    ("=0.5", "NAME=PROBABILITY"),
    ("erase=0.1,erase=0.2", "each operation once"),
    ("rotate90=0.5", "augment.view2.rotate90_prob"),
  ],
)
def test_operations_of_ones_own_have_a_probability(entry, part):
  key = "augment.view2.extra"
  with pytest.raises(errors.UserError) as caught:
    config.validate(convert.updated(schema.Config(), {key: (entry,)}))
  assert str(caught.value).startswith(f"{key}=")
  assert "must" in str(caught.value)
  assert part in str(caught.value)
  config.validate(convert.updated(schema.Config(), {key: ("a=0, b=1",)}))


def augmented(name, given=(), **keys):
  """The keys that a preset changes in the paper's views."""
  before = convert.updated(schema.Config(), {"augment.preset": name, **keys})
  after = presets.with_augment_preset(before, given)
  old, new = (convert.flatten(convert.to_json(x)) for x in (before, after))
  assert new.pop("augment.preset") == ""
  return {key: value for key, value in new.items() if old[key] != value}


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_sets_keys_of_the_views(name):
  before = convert.updated(
    schema.Config(),
    {
      f"augment.{view}.{key}_prob": 0.9
      for view in ("view1", "view2")
      for key in (*spec.OPS, "vertical_flip", "rotate90")
    }
    | {"augment.preset": name},
  )
  after = presets.with_augment_preset(before)
  config.validate(after)
  for key, value in PRESETS[name].items():
    assert convert.value_at(after, f"augment.{key}") == value
  assert PRESETS[name]
  others = {
    key: convert.value_at(after, key)
    for key in PROBABILITIES
    if key.removeprefix("augment.") not in PRESETS[name]
  }
  assert set(others.values()) <= {0.9}


def test_presets_are_the_papers_rows():
  assert augmented("asymmetric") == {}  # The paper's own views.
  blur, solarize = "augment.view2.blur_prob", "augment.view2.solarize_prob"
  assert augmented("view_2_neither") == {blur: 0, solarize: 0}
  symmetric = augmented("symmetric")
  assert symmetric == {
    "augment.view1.blur_prob": 0.5,
    "augment.view1.solarize_prob": 0.2,
    blur: 0.5,
  }
  after = presets.with_augment_preset(
    convert.updated(schema.Config(), {"augment.preset": "crop"})
  )
  assert spec.enabled_ops(after.augment.view1, after.augment.view2) == (
    False,
    (),
    False,
    False,
    False,
    (),
  )


def test_a_given_key_wins_over_a_preset():
  key = "augment.view1.blur_prob"
  given = augmented("no_blur", [key, "seed"], **{key: 1.0})
  assert given == {"augment.view2.blur_prob": 0}


def test_an_unknown_preset_lists_the_known_ones():
  with pytest.raises(errors.UserError, match=r"'no_blurr' .*no_blur, no_gray"):
    augmented("no_blurr")
