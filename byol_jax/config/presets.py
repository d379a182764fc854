"""Configurations to start from, and changes of the views by name."""

import dataclasses
from collections.abc import Callable, Collection
from typing import TypeVar, cast

from ml_collections import config_dict

from byol_jax import errors
from byol_jax.augment import presets as augment_presets
from byol_jax.config import convert, schema

T = TypeVar("T")


def default_config() -> schema.Config:
  """Returns the paper's 1000-epoch ResNet-50 run on ImageNet, locked.

  It is a `ConfigDict` with the keys of `schema.Config`: an override of any other
  key raises an error that names the close ones.
  """
  config = config_dict.ConfigDict(dataclasses.asdict(schema.Config()))
  config.train.steps = config_dict.placeholder(int)  # None has no type.
  config.lock()
  return cast(schema.Config, config)


def preset(presets: dict[str, T], name: str) -> T:
  """Returns the preset of that name; `UserError` lists the known ones."""
  if name not in presets:
    raise errors.unknown_name("preset", name, presets)
  return presets[name]


def with_augment_preset(
  config: schema.Config, given: Collection[str] = ()
) -> schema.Config:
  """Returns a copy with the values that `augment.preset` stands for.

  Args:
    config: names a preset, or none.
    given: dotted keys that keep their values.

  Returns:
    A configuration without a name in `augment.preset`.

  Raises:
    UserError: if the name is unknown.
  """
  name = config.augment.preset
  if not name:
    return config
  if name not in augment_presets.PRESETS:
    raise errors.unknown_name("augment.preset", name, augment_presets.PRESETS)
  values = {
    f"augment.{key}": value
    for key, value in augment_presets.PRESETS[name].items()
  }
  own = {key: value for key, value in values.items() if key not in given}
  return convert.updated(config, own | {"augment.preset": ""})


def cifar_config(recipe: str) -> schema.Config:
  """Returns a run of ResNet-18 on colour images of 32 pixels, locked.

  Args:
    recipe: `lars`, as solo-learn trains on CIFAR, or `sgd`, as lightly does.

  Raises:
    UserError: if the recipe is unknown.
  """
  change = preset(_CIFAR_RECIPES, recipe)
  config = default_config()
  config.data.image_size = 32
  config.data.mean = ()
  config.data.std = ()
  config.data.eval_crop = 1.0
  for view in (config.augment.view1, config.augment.view2):
    view.blur_prob = 0.0  # There is little to blur at 32 pixels.
  config.model.encoder.name = "ResNet18"
  config.model.encoder.stem = "cifar"
  config.ema.base = 0.99
  change(config)
  return config


def _solo_learn(config: schema.Config) -> None:
  """vturrisi/solo-learn at 9187ea3, scripts/pretrain/cifar/byol.yaml."""
  config.optimizer.base_learning_rate = 1.0
  config.optimizer.weight_decay = 1e-5
  config.optimizer.trust_coefficient = 0.02
  config.train.batch_size = 256


def _lightly(config: schema.Config) -> None:
  """lightly-ai/lightly at e8d317f, benchmarks/cifar10_benchmark.py of its docs."""
  config.model.projector.hidden_size = 1024
  config.model.predictor.hidden_size = 1024
  config.ema.schedule = "constant"
  config.ema.same_start = True
  config.optimizer.name = "sgd"
  # Theirs is 0.06 at batch 128 with a decay of 5e-4, for a loss of half the sum of
  # both negative cosines. Ours is four times as steep, so a quarter of the rate and
  # four times the decay make the same steps.
  config.optimizer.base_learning_rate = 0.03
  config.optimizer.weight_decay = 2e-3
  config.optimizer.warmup_epochs = 0.0
  config.train.batch_size = 128
  config.train.epochs = 200
  config.evaluation.knn.k = 200
  config.evaluation.knn.temperature = 0.1


_CIFAR_RECIPES: dict[str, Callable[[schema.Config], None]] = {
  "lars": _solo_learn,
  "sgd": _lightly,
}


def small_grey_config() -> schema.Config:
  """Returns a run on grey images of about 28 pixels, locked.

  The augmentations are those that keep the meaning of such an image: crops,
  brightness, contrast. Heads and schedule suit a small machine.
  """
  config = default_config()
  config.data.image_size = 28
  config.data.eval_crop = 1.0
  config.data.mean = ()
  config.data.std = ()
  for view in (config.augment.view1, config.augment.view2):
    view.crop_area = (0.3, 1.0)
    view.flip_prob = 0.0
    view.saturation = 0.0
    view.hue = 0.0
    view.grayscale_prob = 0.0
    view.blur_prob = 0.0
    view.solarize_prob = 0.0
  config.model.encoder.name = "ResNet18"
  config.model.encoder.stem = "cifar"
  config.model.encoder.pooling = "flatten"  # The position of a stroke matters.
  config.model.projector.hidden_size = 256
  config.model.projector.output_size = 64
  config.model.predictor.hidden_size = 256
  config.ema.base = 0.99
  config.optimizer.name = "sgd"
  config.optimizer.base_learning_rate = 0.3
  config.optimizer.weight_decay = 1e-6
  config.optimizer.warmup_epochs = 1.0
  config.train.batch_size = 256
  config.train.epochs = 20
  _make_evaluation_quick(config.evaluation)
  return config


def _make_evaluation_quick(evaluation: schema.EvaluationConfig) -> None:
  """Coarsens the grids, so that an evaluation takes minutes, not hours."""
  # Milder than in pretraining, as evaluation sees centre crops (held-out training
  # images of Fashion-MNIST, fine-tuned: 0.865 in 400 steps, and 0.840 in 300 with
  # areas from 0.3 on).
  evaluation.view.crop_area = (0.7, 1.0)
  evaluation.view.flip_prob = 0.0
  evaluation.linear.crops = "centre"  # Features are computed once.
  evaluation.linear.learning_rates = (0.1, 0.2, 0.4, 0.8, 1.6)
  evaluation.linear.batch_size = 64
  evaluation.logistic.l2_range = (1.0, 1e3)
  evaluation.logistic.l2_count = 4
  evaluation.semi_supervised.learning_rates = (0.1, 0.02)
  evaluation.semi_supervised.epochs = (50.0,)
  evaluation.semi_supervised.batch_size = 256
  evaluation.finetune.rate_range = (0.01, 0.1)
  evaluation.finetune.rate_count = 2
  evaluation.finetune.decay_count = 0
  evaluation.finetune.steps = 500
