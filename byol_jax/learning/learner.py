"""The update of BYOL as pure functions of a state and a batch."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import chex
import haiku as hk
import jax
import jax.numpy as jnp
import optax

from byol_jax.learning import accumulation, losses
from byol_jax.learning.schedules import Schedule
from byol_jax.learning.target import update_target
from byol_jax.models import networks
from byol_jax.runtime import devices

Batch = Mapping[str, chex.Array]
Metrics = dict[str, chex.Array]
# The outputs of the online and of the target network.
Outputs = tuple[losses.BothViews, losses.BothViews | tuple[()]]


class TrainState(NamedTuple):
  """The state that training carries from step to step, without a device axis.

  Attributes:
    step: int32 scalar, the number of updates made.
    online_params: {module: {name: array}}, which the gradient moves.
    target_params: the same tree, the moving average.
    online_state: running batch-norm statistics of the online network.
    target_state: running batch-norm statistics of the target network; BYOL's are
      not a moving average of those of the online network.
    opt_state: the state of the optimizer.
  """

  step: chex.Array
  online_params: hk.Params
  target_params: hk.Params
  online_state: hk.State
  target_state: hk.State
  opt_state: optax.OptState


class Observed(NamedTuple):
  """What an update computes on its way, for diagnostics.

  Attributes:
    gradient: of the batch, like the parameters.
    change: what is added to the parameters.
    online: outputs for both views of at most 512 examples over all devices, by
      the state before the update; this device's, [b, ...].
    target: those of the target network; () where the loss has none.
  """

  gradient: hk.Params
  change: hk.Params
  online: losses.BothViews
  target: losses.BothViews | tuple[()]


class Learner(NamedTuple):
  """The pure functions that train.

  Attributes:
    init: (key, batch) -> TrainState; only the batch's shapes matter.
    update: (state, batch, axis_name=None) -> (TrainState, metrics). With `axis_name`,
      gradients, metrics and batch-norm statistics are averaged over that axis. Metrics
      are those of the state before the update: loss, repr_loss, classif_loss,
      top1_accuracy, top5_accuracy, tau, learning_rate.
    observed_update: like `update`, with `Observed` as a third result.
  """

  init: Callable[[chex.PRNGKey, Batch], TrainState]
  update: Callable[..., tuple[TrainState, Metrics]]
  observed_update: Callable[..., tuple[TrainState, Metrics, Observed]]


def both_views(
  network: hk.TransformedWithState,
  params: hk.Params,
  state: hk.State,
  batch: Batch,
  axis_name: str | None,
  *,
  is_training: bool = True,
) -> tuple[losses.BothViews, hk.State]:
  """Returns the outputs for view 1 and view 2, and the state after both.

  With `is_training`, batch norm uses the statistics of the batch instead of those
  in the state.
  """
  views = jnp.stack([batch["view1"], batch["view2"]])
  outputs, state = network.apply(
    params, state, views, is_training=is_training, axis_name=axis_name
  )
  first, second = (jax.tree.map(lambda x, i=i: x[i], outputs) for i in range(2))
  return (first, second), state


def _target_views(
  network: hk.TransformedWithState,
  state: TrainState,
  online_state: hk.State,
  batch: Batch,
  axis_name: str | None,
) -> tuple[losses.BothViews, hk.State]:
  """Returns the target's outputs, by statistics of its own; see `Objective`."""
  del online_state
  return both_views(
    network, state.target_params, state.target_state, batch, axis_name
  )


class Objective(NamedTuple):
  """What an update minimises; the defaults are BYOL's.

  Attributes:
    representation_loss: of the outputs of both networks. Other than BYOL's, it may
      compare the images of a batch, then those of one micro-batch on all devices.
    target_views: (network, state, online_state, batch, axis_name) -> the target's
      outputs for both views and its state after them; `online_state` is the online
      network's state after the same views. The outputs may be () if the loss needs
      none.
  """

  representation_loss: losses.RepresentationLoss = losses.byol_loss
  target_views: Callable[..., tuple[Any, hk.State]] = _target_views


BYOL = Objective()


def loss_fn(
  network: hk.TransformedWithState,
  online_params: hk.Params,
  state: TrainState,
  batch: Batch,
  labelled: chex.Array,
  axis_name: str | None = None,
  objective: Objective = BYOL,
) -> tuple[chex.Array, tuple[hk.State, hk.State, Metrics, Outputs]]:
  """Returns BYOL's loss plus the loss of the online classifier.

  The classifier sees view 1 behind a stopped gradient and counts labelled examples
  only.

  Args:
    network: from `networks.make_network`.
    online_params: the parameters to differentiate by; those in `state` are
      ignored.
    state: holds the target network and both batch-norm states.
    batch: `view1`, `view2` [B, H, W, C] in [0, 1]; `label` [B], -1 if unknown.
      It may be a part of a larger batch, on one of several devices or one
      micro-batch: the mean of the results over all parts is the result for the
      whole batch.
    labelled: the fraction of labelled examples in the whole batch.
    axis_name: the devices' axis, for batch-norm statistics.
    objective: what is minimised beside the classifier's loss.

  Returns:
    The scalar loss, and (online_state, target_state, metrics, outputs).
  """
  online, online_state = both_views(
    network, online_params, state.online_state, batch, axis_name
  )
  target, target_state = objective.target_views(
    network, state, online_state, batch, axis_name
  )
  repr_loss = objective.representation_loss(online, target, axis_name)

  def mean_of_labelled(values: chex.Array) -> chex.Array:
    # Division by the fraction in the whole batch makes the mean over parts the
    # mean over all labelled examples. Without any, it is 0.
    return jnp.mean(values) / jnp.maximum(labelled, 1e-9)

  labels, logits = batch["label"], online[0].logits
  classif_loss = mean_of_labelled(losses.softmax_cross_entropy(logits, labels))
  loss = repr_loss + classif_loss
  metrics = dict(
    loss=loss,
    repr_loss=repr_loss,
    classif_loss=classif_loss,
    top1_accuracy=mean_of_labelled(losses.topk_correct(logits, labels, 1)),
    top5_accuracy=mean_of_labelled(losses.topk_correct(logits, labels, 5)),
  )
  return loss, (online_state, target_state, metrics, (online, target))


def make_learner(
  network: hk.TransformedWithState,
  optimizer: optax.GradientTransformation,
  learning_rate: Schedule,
  tau: Schedule,
  *,
  objective: Objective = BYOL,
  microbatches: int = 1,
  draw: Callable[..., Batch] = lambda batch, step, axis_name: batch,
  augment: Callable[[Batch], Batch] = lambda batch: batch,
) -> Learner:
  """Returns the pure functions that train BYOL (Grill et al. 2020, alg. 1).

  Args:
    network: from `networks.make_network`.
    optimizer: the whole chain, with the learning rate.
    learning_rate: the schedule that the optimizer follows, for the metrics.
    tau: the target's decay as a function of the step.
    objective: the loss, and how the target network sees the views.
    microbatches: parts in which `update` processes a batch, to need less memory.
      Gradients are averaged, and optimizer and target take one step per batch;
      batch norm sees one part at a time (paper, batch ablation).
    draw: makes the batch from images on the device, by (batch, step, axis_name).
    augment: makes the views of a part from its crops, if the data layer does not.
  """

  def observed_update(
    state: TrainState, batch: Batch, axis_name: str | None = None
  ) -> tuple[TrainState, Metrics, Observed]:
    with jax.named_scope("draw_batch"):  # Scopes are for profiles.
      batch = draw(batch, state.step, axis_name)
    loss = functools.partial(loss_fn, network, objective=objective)
    grads, states, metrics, outputs = accumulation.accumulate(
      loss, state, batch, microbatches, augment, axis_name
    )
    grads, metrics = devices.mean_over_devices((grads, metrics), axis_name)
    with jax.named_scope("optimizer"):
      updates, opt_state = optimizer.update(
        grads, state.opt_state, state.online_params
      )
      online_params = optax.apply_updates(state.online_params, updates)
    metrics["tau"] = tau(state.step)
    metrics["learning_rate"] = learning_rate(state.step)
    with jax.named_scope("target_average"):
      target_params = update_target(
        state.target_params, online_params, metrics["tau"]
      )
    new_state = TrainState(
      state.step + 1, online_params, target_params, *states, opt_state
    )
    return new_state, metrics, Observed(grads, updates, *outputs)

  def update(*args: Any, **kwargs: Any) -> tuple[TrainState, Metrics]:
    return observed_update(*args, **kwargs)[:2]

  init = functools.partial(_initial_state, network, optimizer)
  return Learner(init, update, observed_update)


def _initial_state(
  network: hk.TransformedWithState,
  optimizer: optax.GradientTransformation,
  key: chex.PRNGKey,
  batch: Batch,
) -> TrainState:
  """Returns the state before the first update; see `Learner.init`."""
  # Two draws, as in the reference: the target does not start as a copy.
  online_key, target_key = jax.random.split(key)
  init_params, state = networks.initialiser(network, batch["view1"])
  online_params = init_params(online_key)
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    online_params=online_params,
    target_params=init_params(target_key),
    online_state=state,
    # A copy, as an update donates the memory of each state by itself.
    target_state=jax.tree.map(jnp.copy, state),
    opt_state=optimizer.init(online_params),
  )
