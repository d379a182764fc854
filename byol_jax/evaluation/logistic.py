"""The protocol `logistic`: regularised logistic regression on frozen features.

This is the paper's linear transfer protocol (Grill et al. 2020, D.2):
multinomial, without augmentation, fitted by L-BFGS, the strength of the l2
penalty chosen among 45.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from byol_jax.evaluation import classifiers, heads
from byol_jax.evaluation.classifiers import Classifier
from byol_jax.evaluation.features import Features
from byol_jax.evaluation.heads import Head

if TYPE_CHECKING:
  from byol_jax.evaluation.eval_model import EvalModel
  from byol_jax.evaluation.splits import Splits

# A fit ends when no element of the gradient of the mean loss is larger:
# scikit-learn's default.
_TOLERANCE = 1e-4
_MAX_ITERATIONS = 300  # Our choice.


@classifiers.score_on_test_split
def run(model: EvalModel, splits: Splits) -> Iterator[Classifier]:
  """Yields one classifier, fitted to all of train with the best penalty."""
  options = model.run.config.evaluation.logistic
  num_classes = model.source.num_classes
  train = model.features(splits.train)
  # The strongest penalty first: of equally good ones, it is chosen.
  strengths = classifiers.log_spaced(options.l2_range, options.l2_count)[::-1]

  standardize, fit = _standardized(train.select(splits.fit))
  held_out = train.select(splits.validation)
  vectors = standardize(held_out.vectors)
  values = [
    classifiers.validation_value(
      model, held_out._replace(vectors=heads.logits(layer, vectors))
    )
    for layer in regularization_path(fit, strengths, num_classes)
  ]
  tried = [{"l2": l2} for l2 in strengths]
  best, details = classifiers.choose(tried, values, splits)
  standardize, everything = _standardized(train)
  (layer,) = regularization_path(everything, [strengths[best]], num_classes)
  yield Classifier(
    "",
    lambda split: heads.logits(
      layer, standardize(model.features(split).vectors)
    ),
    details,
  )


class Standardizer(NamedTuple):
  """Scales every feature to mean 0 and variance 1.

  Attributes:
    mean: [D].
    scale: [D]; 1 for constant features.
  """

  mean: np.ndarray
  scale: np.ndarray

  def __call__(self, vectors: np.ndarray) -> np.ndarray:
    """Returns standardised vectors [N, D]."""
    return (vectors - self.mean) / self.scale


def fit_standardizer(vectors: np.ndarray) -> Standardizer:
  """Returns the standardizer of vectors [N, D]."""
  scale = np.std(vectors, axis=0)
  return Standardizer(np.mean(vectors, axis=0), np.where(scale > 0, scale, 1))


def _standardized(train: Features) -> tuple[Standardizer, Features]:
  standardize = fit_standardizer(train.vectors)
  return standardize, train._replace(vectors=standardize(train.vectors))


def regularization_path(
  train: Features, strengths: Iterable[float], num_classes: int
) -> Iterator[Head]:
  """Fits one layer per strength of the penalty; each fit starts at the last.

  Args:
    train: the examples to fit to; a penalty treats standardised features alike.
    strengths: of the l2 penalty on the summed loss, strongest first, so that
      each fit takes few iterations.
    num_classes: labels lie in [0, num_classes).

  Yields:
    The layers, as NumPy arrays.
  """
  vectors, labels = jax.device_put((np.asarray(train.vectors), train.labels))
  head = heads.new_head(vectors.shape[1], num_classes)
  for l2 in strengths:
    head = _fit(head, vectors, labels, l2)
    yield jax.device_get(head)


def _objective(head, vectors, labels, l2):
  """The mean loss of a layer, penalised like scikit-learn's at C = 1 / l2."""
  penalty = 0.5 * l2 * jnp.sum(head.w**2) / len(labels)
  return heads.loss(head, vectors, labels) + penalty


@jax.jit
def _fit(head, vectors, labels, l2):
  """Minimises the objective by L-BFGS, starting at a given layer."""
  optimizer = optax.lbfgs()

  def objective(head):
    return _objective(head, vectors, labels, l2)

  value_and_grad = optax.value_and_grad_from_state(objective)

  def step(carry):
    head, state, _, count = carry
    value, grad = value_and_grad(head, state=state)
    updates, state = optimizer.update(
      grad, state, head, value=value, grad=grad, value_fn=objective
    )
    return optax.apply_updates(head, updates), state, grad, count + 1

  def is_unfinished(carry):
    _, _, grad, count = carry
    largest = optax.tree.norm(grad, ord=jnp.inf)
    return (count == 0) | ((count < _MAX_ITERATIONS) & (largest > _TOLERANCE))

  start = (head, optimizer.init(head), head, jnp.zeros((), jnp.int32))
  return jax.lax.while_loop(is_unfinished, step, start)[0]
