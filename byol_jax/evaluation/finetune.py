"""The protocol `finetune`: encoder and linear head trained together on labels.

Grill et al. 2020, D.3: SGD with Nesterov momentum, random crops and flips,
batch norm in training mode. `semi_supervised` trains likewise. Without
pretraining, this is supervised training from scratch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import chex
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax

from byol_jax.config import convert, schema
from byol_jax.evaluation import classifiers, features, heads
from byol_jax.evaluation.classifiers import Classifier
from byol_jax.evaluation.features import Features
from byol_jax.evaluation.heads import Head
from byol_jax.learning import optimizers, schedules
from byol_jax.runtime import devices
from byol_jax.training import build

if TYPE_CHECKING:
  from byol_jax.evaluation.eval_model import EvalModel
  from byol_jax.evaluation.splits import Splits


@classifiers.score_on_test_split
def run(model: EvalModel, splits: Splits) -> Iterator[Classifier]:
  """Yields one classifier, fitted to all of train with the best settings."""
  options = model.run.config.evaluation.finetune
  batch_size = classifiers.usable_batch_size(
    options.batch_size, len(splits.fit)
  )
  decays = classifiers.log_spaced(options.decay_range, options.decay_count)
  rates = classifiers.log_spaced(options.rate_range, options.rate_count)
  tried = [
    {"learning_rate": rate, "weight_decay": decay / rate}
    for rate in rates
    for decay in [0.0, *decays]
  ]
  grid = [HParams(**settings, total_steps=options.steps) for settings in tried]
  score = make_scorer(model)
  values = [
    classifiers.validation_value(
      model, score(state, splits.train, splits.validation)
    )
    for state in finetuned(model, splits.train, splits.fit, grid, batch_size)
  ]
  best, details = classifiers.choose(tried, values, splits)
  everything = range(splits.num_train)
  (final,) = finetuned(
    model, splits.train, everything, [grid[best]], batch_size
  )
  yield Classifier(
    "",
    lambda split: score(final, split).vectors,
    details | {"steps": options.steps, "batch_size": batch_size},
  )


class HParams(NamedTuple):
  """The hyper-parameters of fine-tuning.

  Attributes:
    learning_rate: the rate at the first step; it falls along a cosine to 0.
    weight_decay: times the weights, added to their gradient.
    total_steps: the number of batches.
  """

  learning_rate: float
  weight_decay: float
  total_steps: int


class State(NamedTuple):
  """The state of fine-tuning between steps, without a device axis.

  Attributes:
    step: the number of updates so far.
    hparams: part of the state, so that a grid shares one compiled update.
    params: the network's parameters.
    state: the network's batch-norm statistics.
    head: the linear layer on the encoder.
    opt_state: the state of `heads.sgd` for parameters and head.
  """

  step: chex.Array
  hparams: HParams
  params: hk.Params
  state: hk.State
  head: Head
  opt_state: optax.OptState


def new_state(
  hparams: HParams, params: hk.Params, state: hk.State, head: Head
) -> State:
  """Returns the state before the first step; its arrays may be donated."""
  params, state, head = jax.tree.map(jnp.array, (params, state, head))
  return State(
    step=jnp.zeros((), jnp.int32),
    hparams=HParams(*(jnp.float32(value) for value in hparams)),
    params=params,
    state=state,
    head=head,
    opt_state=heads.sgd(0.0).init((params, head)),
  )


def update(
  network: hk.TransformedWithState,
  now: State,
  batch: Mapping[str, chex.Array],
  axis_name: str | None = None,
  *,
  shared_statistics: bool = True,
) -> tuple[State, chex.Array]:
  """Makes one step on a batch of labelled images.

  Args:
    network: from `networks.make_network`; its projector and predictor get no
      gradient.
    now: the state.
    batch: `image` [B, H, W, C] in [0, 1] and `label` as for `heads.loss`.
    axis_name: the axis of devices over which gradients are averaged.
    shared_statistics: whether batch norm sees the images of all devices, so
      that their number does not matter; the reference's sees each device's.

  Returns:
    The state after the step, and the loss before it
    (deepmind-research/byol/eval_experiment.py).
  """

  def loss_fn(trained):
    params, head = trained
    outputs, state = network.apply(
      params,
      now.state,
      batch["image"],
      is_training=True,
      axis_name=axis_name if shared_statistics else None,
    )
    return heads.loss(head, outputs.embedding, batch["label"]), state

  trained = (now.params, now.head)
  (loss, state), grads = jax.value_and_grad(loss_fn, has_aux=True)(trained)
  grads, loss = devices.mean_over_devices((grads, loss), axis_name)
  hparams = now.hparams
  falling = schedules.half_cosine(now.step, hparams.total_steps)
  decay = optax.add_decayed_weights(
    hparams.weight_decay,
    mask=(optimizers.exclude_bias_and_norm(now.params), Head(True, False)),
  )
  grads, _ = decay.update(grads, decay.init(trained), trained)
  optimizer = heads.sgd(hparams.learning_rate * falling)
  updates, opt_state = optimizer.update(grads, now.opt_state)
  params, head = optax.apply_updates(trained, updates)
  after = State(now.step + 1, hparams, params, state, head, opt_state)
  return after, loss


def make_fit(network: hk.TransformedWithState) -> Callable[..., State]:
  """Returns a function that fine-tunes a network, compiled once.

  The function `fit(start, batches, total_steps)` takes a state from
  `new_state`, which it donates, and at least as many batches as steps. It
  returns the last state, which holds NaN if training diverged.
  """

  def update_on_device(state, batch, axis_name):
    return update(network, state, batch, axis_name)

  mapped = devices.pmap_update(update_on_device)

  def fit(
    start: State, batches: Iterable[dict[str, np.ndarray]], total_steps: int
  ) -> State:
    state = devices.replicate(start)
    steps = range(total_steps)
    for _, batch in zip(steps, devices.prefetch(batches), strict=False):
      state, _ = mapped(state, batch)
    return state

  return fit


def batch_norm_decay_rate(steps_per_epoch: float) -> float:
  """Returns the decay rate of running statistics, for short epochs (D.3)."""
  return max(1 - 10 / steps_per_epoch, 0.9)


def finetuned(
  model: EvalModel,
  split: str,
  indices: range | np.ndarray,
  grid: Sequence[HParams],
  batch_size: int,
) -> Iterator[State]:
  """Yields the model's network fine-tuned with each of some hyper-parameters.

  Args:
    model: the network to start from.
    split: tfds split expression.
    indices: the examples of the split to train on.
    grid: the hyper-parameters.
    batch_size: examples in a batch over all devices.
  """
  config = convert.typed(model.run.config)
  config.model.batch_norm.decay_rate = batch_norm_decay_rate(
    len(indices) / batch_size
  )
  fit = make_fit(build.build_network(config, model.run.num_classes))
  data = config.data
  image = np.zeros((1, *schema.image_shape(data), data.channels), np.float32)
  num_features = model.encode(image).shape[1]
  head = heads.new_head(num_features, model.source.num_classes)
  for hparams in grid:
    yield fit(
      new_state(hparams, model.params, model.state, head),
      model.random_crops(split, indices, batch_size),
      hparams.total_steps,
    )


def make_scorer(model: EvalModel) -> Callable[..., Features]:
  """Returns a function that gives a fine-tuned network's scores of a split.

  The function `score(state, split, indices=None)` returns the class scores, as
  `vectors`, and the labels of all examples of a split or of those at `indices`.
  """
  network = build.build_network(model.run.config, model.run.num_classes)

  def scores_of(state, images):
    outputs, _ = network.apply(
      state.params, state.state, images, is_training=False
    )
    return heads.logits(state.head, outputs.embedding)

  mapped = devices.pmap_examples(scores_of)

  def score(state: State, split: str, indices: range | None = None) -> Features:
    if indices is None:
      count = model.source.num_examples(split)
    else:
      count = len(indices)
    batches = features.extract(
      lambda images: mapped(state, images),
      model.eval_batches(split, indices),
      count,
    )
    return Features(*map(np.concatenate, zip(*batches, strict=True)))

  return score
