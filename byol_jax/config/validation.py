"""The rules that values of a configuration must keep, whatever the data."""

import math
import re
from typing import Any

from byol_jax import errors
from byol_jax.augment import spec
from byol_jax.config import convert, schema, value_types
from byol_jax.config.convert import value_at

_POSITIVE = (
  "data.channels",
  "data.shuffle_buffer",
  "data.shuffle_bytes",
  "model.encoder.width",
  "model.projector.layers",
  "model.projector.hidden_size",
  "model.projector.output_size",
  "model.predictor.layers",
  "model.predictor.hidden_size",
  "model.batch_norm.eps",
  "model.predictor.ridge",
  "loss.alpha",
  "optimizer.trust_coefficient",
  "ema.base_batch_size",
  "train.batch_size",
  "train.epochs",
  "train.microbatches",
  "evaluation.batch_size",
  "evaluation.knn.k",
  "evaluation.knn.temperature",
  "evaluation.retrieval.k",
  "evaluation.geometry.lidar_images",
  "evaluation.geometry.lidar_pairs",
  "evaluation.linear.epochs",
  "evaluation.linear.batch_size",
  "evaluation.logistic.l2_count",
  "evaluation.semi_supervised.batch_size",
  "evaluation.finetune.rate_count",
  "evaluation.finetune.steps",
  "evaluation.finetune.batch_size",
  "checkpoint.keep",
  "log.every_steps",
)
_NOT_NEGATIVE = (
  "seed",
  "data.image_size",
  "data.image_width",
  "data.cache_bytes",
  "data.parts",
  "data.copy_side",
  "data.decode_side",
  "data.threads",
  "data.prefetch",
  "model.encoder.patch",
  "model.batch_norm.group_size",
  "evaluation.every_epochs",
  "evaluation.finetune.decay_count",
  "loss.beta",
  "loss.relic",
  "ema.half_life",
  "optimizer.base_learning_rate",
  "optimizer.weight_decay",
  "optimizer.warmup_epochs",
  "optimizer.clip",
  "optimizer.projector_rate",
  "optimizer.predictor_rate",
  "train.check_replicas_every",
  "train.hang_seconds",
  "checkpoint.every_seconds",
  "checkpoint.every_steps",
  "checkpoint.keep_every",
  "log.diagnose_every",
)
_IN_0_TO_BELOW_1 = (
  "data.test_share",
  "data.max_broken",
  "optimizer.momentum",
  "model.batch_norm.decay_rate",
)
_ABOVE_0_TO_1 = ("data.eval_crop", "data.fraction")
_BETWEEN_0_AND_1 = ("evaluation.holdout",)
# What takes memory or time at once. Our choice: far above what anybody trains with;
# `training.memory` compares what remains with the machine.
_AT_MOST = {
  "data.image_size": 4096,
  "data.image_width": 4096,
  "data.channels": 2**10,
  "data.threads": 2**12,
  "data.prefetch": 2**12,
  "model.encoder.width": 64,
  "model.projector.layers": 100,
  "model.projector.hidden_size": 2**20,
  "model.projector.output_size": 2**20,
  "model.predictor.layers": 100,
  "model.predictor.hidden_size": 2**20,
  "evaluation.batch_size": 2**20,
  "evaluation.every_epochs": 1e6,
  "evaluation.geometry.lidar_images": 10_000,
  "evaluation.linear.epochs": 1e6,
  "evaluation.linear.batch_size": 2**20,
  "evaluation.logistic.l2_count": 1000,
  "evaluation.semi_supervised.batch_size": 2**20,
  "evaluation.finetune.rate_count": 1000,
  "evaluation.finetune.decay_count": 1000,
  "evaluation.finetune.batch_size": 2**20,
}
_ONE_OF: dict[str, tuple[Any, ...]] = {
  "data.placement": ("host", "device"),
  "data.copy_format": ("jpeg", "raw"),
  "augment.placement": ("host", "device"),
  "model.batch_norm.precision": ("float32", "bfloat16"),
  "evaluation.linear.crops": ("random", "centre"),
  "log.level": ("info", "warning", "error"),
}
# Unlike a workdir, an encoder or `data.data_dir`, these are read from a disk only.
_ON_DISK = ("data.root", "data.labels", "evaluation.root")
_RANGES = (
  "evaluation.logistic.l2_range",
  "evaluation.finetune.rate_range",
  "evaluation.finetune.decay_range",
)
_GRIDS = (
  "evaluation.linear.learning_rates",
  "evaluation.semi_supervised.labels",
  "evaluation.semi_supervised.learning_rates",
  "evaluation.semi_supervised.epochs",
)
_EXPECTED = re.compile(r"[^=\s]+=-?\d+(\.\d+)?")


def validate(config: schema.Config) -> None:
  """Raises `UserError` for the first value that cannot work whatever the data.

  The registries check their names (encoder, data set, optimizer, protocols), and
  `runtime.devices` checks the batch against the devices.
  """
  try:
    config = convert.typed(config)
  except AttributeError as error:
    raise errors.UserError(
      f"The configuration lacks keys ({str(error).splitlines()[0]}); let"
      " get_config return an edited byol_jax.config.default_config()."
    ) from error
  for key, kind in convert.key_types(schema.Config).items():
    value = value_at(config, key)
    rule = value_types.broken_rule(key, value, kind)
    _require(not rule, f"{key}={value!r} must be {rule}.")
  for key in _ON_DISK:
    path = value_at(config, key)
    _require(
      "://" not in path,
      f"{key}={path} must be on a disk: copy it there and give that path.",
    )
  _check_numbers(config)
  _check_interval("ema.base", config.ema.base, most=1)
  _check_data(config.data)
  _check_loss(config)
  steps = config.train.steps
  _require(
    steps is None or steps > 0,
    f"train.steps={steps} must be above 0, or unset to use train.epochs.",
  )
  _require(
    not config.checkpoint.keep_best or config.evaluation.every_epochs > 0,
    "checkpoint.keep_best=True compares the evaluations of"
    " evaluation.every_epochs, which is 0; set it, such as to 1.",
  )
  _check_evaluation(config)
  for key in ("augment.view1", "augment.view2"):
    _check_view(key, value_at(config, key), config.data)


def _require(condition: bool, message: str) -> None:
  if not condition:
    raise errors.UserError(message)


def _check_numbers(config: schema.Config) -> None:
  """Checks single values against the tables above."""
  for keys, is_right, rule in (
    (_POSITIVE, lambda x: x > 0, "be above 0"),
    (_NOT_NEGATIVE, lambda x: x >= 0, "not be negative"),
    (_IN_0_TO_BELOW_1, lambda x: 0 <= x < 1, "lie in [0, 1)"),
    (_ABOVE_0_TO_1, lambda x: 0 < x <= 1, "lie in (0, 1]"),
    (_BETWEEN_0_AND_1, lambda x: 0 < x < 1, "lie between 0 and 1"),
  ):
    for key in keys:
      value = value_at(config, key)
      _require(is_right(value), f"{key}={value} must {rule}.")
  for key, most in _AT_MOST.items():
    value = value_at(config, key)
    _require(value <= most, f"{key}={value} must be at most {most:g}.")
  for key, known in _ONE_OF.items():
    value = value_at(config, key)
    choices = " or ".join(map(str, known))
    _require(value in known, f"{key}={value} must be {choices}.")


def _check_loss(config: schema.Config) -> None:
  """Checks that the parts of the loss suit each other."""
  loss, kind = config.loss, config.model.predictor.kind
  compares_images = loss.beta or loss.relic
  _require(
    not compares_images or loss.normalization == "l2",
    f"loss.normalization={loss.normalization} must be l2 with loss.beta or"
    " loss.relic above 0, which compare cosines.",
  )
  _require(
    loss.target_network or kind != "closed_form",
    f"loss.target_network={loss.target_network} must be True with"
    f" model.predictor.kind={kind}, which fits the target network.",
  )


def _check_data(data: schema.DataConfig) -> None:
  """Checks the shape of views and the normalisation."""
  _require(
    data.image_size > 0 or not data.image_width,
    f"data.image_width={data.image_width} needs a height: set data.image_size, which"
    f" is {data.image_size}.",
  )
  for key, values in (("data.mean", data.mean), ("data.std", data.std)):
    _require(
      len(values) in (0, data.channels),
      f"{key}={values} must have one number per channel ({data.channels}), or be"
      " () for the data set's own.",
    )
  _require(
    min(data.std, default=1) > 0, f"data.std={data.std} must be above 0."
  )


def _check_range(key: str, value: Any, most: float = math.inf) -> None:
  """Raises `UserError` unless 0 < low <= high <= most."""
  rule = "0 < low <= high" + (f" <= {most}" if most < math.inf else "")
  _require(
    len(value) == 2 and 0 < value[0] <= value[1] <= most,
    f"{key}={value} must be (low, high) with {rule}.",
  )


def _check_interval(key: str, value: float, most: float) -> None:
  _require(0 <= value <= most, f"{key}={value} must lie in [0, {most}].")


def _check_crop(key: str, crop: spec.Crop) -> None:
  """Checks how random crops are drawn."""
  _check_range(f"{key}.crop_area", crop.crop_area, most=1)
  _check_range(f"{key}.crop_aspect", crop.crop_aspect)
  _check_interval(f"{key}.flip_prob", crop.flip_prob, most=1)


def _check_view(key: str, view: spec.View, data: schema.DataConfig) -> None:
  """Checks the probabilities and ranges of a view, and that its turns fit."""
  _check_crop(key, view)
  for name in spec.OPS:
    _check_interval(f"{key}.{name}_prob", getattr(view, f"{name}_prob"), 1)
  for name, operation in spec.COLOUR_OPS.items():
    _check_interval(f"{key}.{name}", getattr(view, name), most=operation.most)
  _check_range(f"{key}.blur_sigma", view.blur_sigma)
  height, width = schema.image_shape(data)
  _require(
    not spec.extra_probabilities(view, key)["rotate90"] or height == width,
    f"{key}.rotate90_prob={view.rotate90_prob:g} must be 0 for views of"
    f" {height}x{width} pixels, since a quarter turn exchanges height and width; set"
    " it to 0, or data.image_width to 0 for square views.",
  )


def _check_evaluation(config: schema.Config) -> None:
  """Checks grids, crops and the other data set of an evaluation."""
  evaluation = config.evaluation
  for key in _RANGES:
    _check_range(key, value_at(config, key))
  for key in _GRIDS:
    values = value_at(config, key)
    _require(
      len(values) > 0 and min(values) > 0,
      f"{key}={values} must be numbers above 0, at least one.",
    )
  epochs = evaluation.semi_supervised.epochs
  _require(
    max(epochs) <= 1e6,
    f"evaluation.semi_supervised.epochs={epochs} must be at most 1e+06.",
  )
  for expected in evaluation.expected:
    _require(
      bool(_EXPECTED.fullmatch(expected)),
      f"evaluation.expected={evaluation.expected} must hold NAME=NUMBER, such as"
      f" linear/top1=0.97, not {expected!r}.",
    )
  _check_crop("evaluation.view", evaluation.view)
  _require(
    evaluation.dataset in ("folder", "arrays") or not evaluation.root,
    f"evaluation.root={evaluation.root} needs evaluation.dataset=folder, or"
    " arrays.",
  )
