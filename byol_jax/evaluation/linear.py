"""The protocol `linear`: one layer on frozen features, trained by SGD.

Grill et al. 2020, C.1: Nesterov momentum 0.9, no weight decay, the learning
rate chosen on validation examples. As in the reference
(deepmind-research/byol/eval_experiment.py), the rate scales with the batch size
and falls along a cosine without warm-up.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import chex
import jax
import numpy as np
import optax

from byol_jax.evaluation import classifiers, features, heads
from byol_jax.evaluation.classifiers import Classifier
from byol_jax.evaluation.features import Features
from byol_jax.evaluation.heads import Head
from byol_jax.learning import schedules

if TYPE_CHECKING:
  from byol_jax.evaluation.eval_model import EvalModel
  from byol_jax.evaluation.splits import Splits

Batches = Iterable[tuple[np.ndarray, np.ndarray]]  # Vectors and labels.


@classifiers.score_on_test_split
def run(model: EvalModel, splits: Splits) -> Iterator[Classifier]:
  """Yields one classifier, fitted to all of train with the best rate."""
  options = model.run.config.evaluation.linear
  train = model.features(splits.train)
  held_out = train.select(splits.validation)
  layers = _fit(model, splits, splits.fit, options.learning_rates)
  values = [
    classifiers.validation_value(
      model, held_out._replace(vectors=heads.logits(layer, held_out.vectors))
    )
    for layer in heads.unstack(layers)
  ]
  tried = [{"learning_rate": rate} for rate in options.learning_rates]
  best, details = classifiers.choose(tried, values, splits)
  everything = range(splits.num_train)
  rates = [options.learning_rates[best]]
  (layer,) = heads.unstack(_fit(model, splits, everything, rates))
  yield Classifier(
    "",
    lambda split: heads.logits(layer, model.features(split).vectors),
    details
    | {
      "crops": options.crops,
      "epochs": options.epochs,
      "batch_size": classifiers.usable_batch_size(
        options.batch_size, splits.num_train
      ),
    },
  )


def _fit(
  model: EvalModel,
  splits: Splits,
  indices: range,
  base_learning_rates: Sequence[float],
) -> Head:
  """Returns one layer per rate, fitted to some examples of train."""
  options = model.run.config.evaluation.linear
  batch_size = classifiers.usable_batch_size(options.batch_size, len(indices))
  train = model.features(splits.train)
  batches: Batches
  if options.crops == "centre":
    seed = model.run.config.seed
    batches = _shuffled(train.select(indices), batch_size, seed)
  else:
    crops = model.random_crops(splits.train, indices, batch_size)
    batches = features.extract(model.encode, crops)
  return fit(
    batches,
    learning_rates=[
      schedules.peak_learning_rate(rate, batch_size)
      for rate in base_learning_rates
    ],
    total_steps=classifiers.num_steps(options.epochs, len(indices), batch_size),
    num_features=train.vectors.shape[1],
    num_classes=model.source.num_classes,
  )


def _shuffled(
  train: Features, batch_size: int, seed: int
) -> Iterator[Features]:
  """Yields endless batches; each epoch has another order."""
  random, order = np.random.RandomState(seed), np.zeros(0, np.int64)
  while True:
    while len(order) < batch_size:
      epoch = random.permutation(len(train.labels))
      order = np.concatenate([order, epoch])
    # Sorted, so that memory-mapped features are read from front to back.
    batch, order = np.sort(order[:batch_size]), order[batch_size:]
    yield train.select(batch)


def fit(
  batches: Batches,
  *,
  learning_rates: Sequence[float],
  total_steps: int,
  num_features: int,
  num_classes: int,
) -> Head:
  """Trains one layer per learning rate, all in one pass over the data.

  Args:
    batches: at least `total_steps` pairs of vectors [B, D] and labels.
    learning_rates: the rates at the first step; each falls along a cosine to 0.
    total_steps: the number of batches that are used.
    num_features: D.
    num_classes: C.

  Returns:
    The layers in the order of the rates, as a stack of NumPy arrays. A layer
    that diverged holds NaN.
  """
  peaks = np.asarray(learning_rates, np.float32)
  cosine = schedules.learning_rate_schedule(
    1.0, total_steps=total_steps, warmup_steps=0
  )
  layers = heads.stack(heads.new_head(num_features, num_classes), len(peaks))
  opt_state = jax.vmap(heads.sgd(0.0).init)(layers)
  for step, (vectors, labels) in zip(range(total_steps), batches, strict=False):
    layers, opt_state, _ = update(
      layers, opt_state, peaks * float(cosine(step)), vectors, labels
    )
  return jax.device_get(layers)


@jax.jit
def update(
  layers: Head,
  opt_state: optax.OptState,
  learning_rates: chex.Array,
  vectors: chex.Array,
  labels: chex.Array,
) -> tuple[Head, optax.OptState, chex.Array]:
  """Updates all layers of a stack on the same batch.

  Args:
    layers: a stack of L layers.
    opt_state: the states of `heads.sgd`, with a leading axis [L].
    learning_rates: [L], the rates of this step.
    vectors: [B, D].
    labels: as for `heads.loss`.

  Returns:
    The layers and optimizer states after the step, and the losses [L] before
    it.
  """

  def update_one(head, opt_state, learning_rate):
    loss, grads = jax.value_and_grad(heads.loss)(head, vectors, labels)
    optimizer = heads.sgd(learning_rate)
    updates, opt_state = optimizer.update(grads, opt_state)
    return optax.apply_updates(head, updates), opt_state, loss

  return jax.vmap(update_one)(layers, opt_state, learning_rates)
