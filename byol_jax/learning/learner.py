"""The update of BYOL as pure functions of a state and a batch."""

import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import chex
import haiku as hk
import jax
import jax.numpy as jnp
import optax

from byol_jax.learning import losses
from byol_jax.learning.schedules import Schedule
from byol_jax.learning.target import update_target
from byol_jax.models import networks
from byol_jax.runtime import devices

Batch = Mapping[str, chex.Array]
Metrics = dict[str, chex.Array]


class TrainState(NamedTuple):
  """The state that training carries from step to step, without a device axis.

  Attributes:
    step: int32 scalar, the number of updates made.
    online_params: {module: {name: array}}, which the gradient moves.
    target_params: the same tree, the moving average.
    online_state: running batch-norm statistics of the online network.
    target_state: those of the target network, no moving average of the online's.
    opt_state: the state of the optimizer.
  """

  step: chex.Array
  online_params: hk.Params
  target_params: hk.Params
  online_state: hk.State
  target_state: hk.State
  opt_state: optax.OptState


class Learner(NamedTuple):
  """The pure functions that train.

  Attributes:
    init: (key, batch) -> TrainState; only the batch's shapes matter.
    update: (state, batch, axis_name=None) -> (TrainState, metrics).
  """

  init: Callable[[chex.PRNGKey, Batch], TrainState]
  update: Callable[..., tuple[TrainState, Metrics]]


def _initialiser(
  network: hk.TransformedWithState, images: chex.Array
) -> tuple[Callable[[chex.PRNGKey], hk.Params], hk.State]:
  """Returns a function that draws parameters, and the initial state of zeros.

  Haiku creates parameters by running the forward pass. Under `jit`, XLA removes
  all of it but the initialisers, as only they lead to the parameters. The state
  would depend on the images, so it is made from its shapes.
  """
  zeros = jnp.zeros((1, *images.shape[-3:]))

  def init(key: chex.PRNGKey) -> tuple[hk.Params, hk.State]:
    return network.init(key, zeros, is_training=True)

  _, shapes = jax.eval_shape(init, jax.random.key(0))
  state = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
  return jax.jit(lambda key: init(key)[0]), state


class Passes(NamedTuple):
  """What both networks make of both views of a batch.

  Attributes:
    online1, online2: outputs of the online network for views 1 and 2.
    target1, target2: those of the target network.
    online_state, target_state: batch-norm statistics after both views.
  """

  online1: networks.Outputs
  online2: networks.Outputs
  target1: networks.Outputs
  target2: networks.Outputs
  online_state: hk.State
  target_state: hk.State


def _both_views(
  network: hk.TransformedWithState,
  params: hk.Params,
  state: hk.State,
  batch: Batch,
  axis_name: str | None,
) -> tuple[networks.Outputs, networks.Outputs, hk.State]:
  """Returns the outputs for view 1 and view 2, and the state after both."""
  views = jnp.stack([batch["view1"], batch["view2"]])
  outputs, state = network.apply(
    params, state, views, is_training=True, axis_name=axis_name
  )
  first, second = (jax.tree.map(lambda x, i=i: x[i], outputs) for i in range(2))
  return first, second, state


def labelled_fraction(labels: chex.Array, axis_name: str | None) -> chex.Array:
  """Returns the fraction of labelled examples in a batch over all devices."""
  return devices.mean_over_devices(jnp.mean(labels >= 0), axis_name)


def loss_fn(
  network: hk.TransformedWithState,
  online_params: hk.Params,
  state: TrainState,
  batch: Batch,
  labelled: chex.Array,
  axis_name: str | None = None,
) -> tuple[chex.Array, tuple[hk.State, hk.State, Metrics]]:
  """Returns BYOL's loss plus the loss of the online classifier.

  The loss compares the online network's prediction for each view with the target
  network's projection of the other view, and adds both directions (Grill et al.
  2020, eq. 2). The classifier sees view 1 behind a stopped gradient and counts
  labelled examples only.

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

  Returns:
    The scalar loss, and (online_state, target_state, metrics).
  """
  passes = forward(network, online_params, state, batch, axis_name)
  loss, metrics = losses_of(passes, batch["label"], labelled)
  return loss, (passes.online_state, passes.target_state, metrics)


def forward(
  network: hk.TransformedWithState,
  online_params: hk.Params,
  state: TrainState,
  batch: Batch,
  axis_name: str | None = None,
) -> Passes:
  """Returns what both networks make of a batch; see `loss_fn`."""
  online1, online2, online_state = _both_views(
    network, online_params, state.online_state, batch, axis_name
  )
  target1, target2, target_state = _both_views(
    network, state.target_params, state.target_state, batch, axis_name
  )
  return Passes(online1, online2, target1, target2, online_state, target_state)


def losses_of(
  passes: Passes, labels: chex.Array, labelled: chex.Array
) -> tuple[chex.Array, Metrics]:
  """Returns the loss of both networks' outputs, and metrics; see `loss_fn`."""
  online1, online2 = passes[:2]
  target1, target2 = jax.lax.stop_gradient(passes[2:4])
  repr_loss = jnp.mean(
    losses.regression_loss(online1.prediction, target2.projection)
    + losses.regression_loss(online2.prediction, target1.projection)
  )

  def mean_of_labelled(values: chex.Array) -> chex.Array:
    # Division by the fraction in the whole batch makes the mean over parts the
    # mean over all labelled examples. Without any, it is 0.
    return jnp.mean(values) / jnp.maximum(labelled, 1e-9)

  logits = online1.logits
  classif_loss = mean_of_labelled(losses.softmax_cross_entropy(logits, labels))
  metrics = dict(
    loss=repr_loss + classif_loss,
    repr_loss=repr_loss,
    classif_loss=classif_loss,
    top1_accuracy=mean_of_labelled(losses.topk_correct(logits, labels, 1)),
    top5_accuracy=mean_of_labelled(losses.topk_correct(logits, labels, 5)),
  )
  return metrics["loss"], metrics


def _accumulate(
  network: hk.TransformedWithState,
  state: TrainState,
  batch: Batch,
  microbatches: int,
  augment: Callable[[Batch], Batch],
  axis_name: str | None,
) -> tuple[hk.Params, hk.State, hk.State, Metrics]:
  """Returns mean gradients, the last states and mean metrics of micro-batches.

  They are processed in turn, so that only one's views and activations are in memory.
  """
  labelled = labelled_fraction(batch["label"], axis_name)

  def views_of(part):
    with jax.named_scope("augment"):
      return augment(part)

  def add(carry, part):
    total, online_state, target_state = carry
    now = state._replace(online_state=online_state, target_state=target_state)
    grads, (online_state, target_state, metrics) = jax.grad(
      lambda params: loss_fn(
        network, params, now, views_of(part), labelled, axis_name
      ),
      has_aux=True,
    )(state.online_params)
    total = jax.tree.map(jnp.add, total, grads)
    return (total, online_state, target_state), metrics

  zeros = jax.tree.map(jnp.zeros_like, state.online_params)
  (total, online_state, target_state), metrics = jax.lax.scan(
    add,
    (zeros, state.online_state, state.target_state),
    jax.tree.map(
      lambda x: x.reshape(microbatches, -1, *x.shape[1:]), dict(batch)
    ),
    unroll=0 if microbatches == 1 else 1,  # A single part needs no loop.
  )
  return (
    jax.tree.map(lambda x: x / microbatches, total),
    online_state,
    target_state,
    jax.tree.map(lambda x: jnp.mean(x, axis=0), metrics),
  )


def make_learner(
  network: hk.TransformedWithState,
  optimizer: optax.GradientTransformation,
  learning_rate: Schedule,
  tau: Schedule,
  *,
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
    microbatches: parts in which `update` processes a batch, to need less memory.
      Optimizer and target take one step per batch, by mean gradients; batch norm
      sees one part at a time (paper, batch ablation).
    draw: makes the batch from images on the device, by (batch, step, axis_name).
    augment: makes the views of a part from its crops, if the data layer does not.

  Returns:
    `init` and `update`. With `axis_name`, `update` averages gradients, metrics
    and batch-norm statistics over that axis. Metrics are those of the state
    before the update: loss, repr_loss, classif_loss, top1_accuracy,
    top5_accuracy, tau, learning_rate.
  """

  def update(
    state: TrainState, batch: Batch, axis_name: str | None = None
  ) -> tuple[TrainState, Metrics]:
    with jax.named_scope("draw_batch"):  # Scopes are for profiles.
      batch = draw(batch, state.step, axis_name)
    grads, online_state, target_state, metrics = _accumulate(
      network, state, batch, microbatches, augment, axis_name
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
    return TrainState(
      step=state.step + 1,
      online_params=online_params,
      target_params=target_params,
      online_state=online_state,
      target_state=target_state,
      opt_state=opt_state,
    ), metrics

  return Learner(functools.partial(_initial_state, network, optimizer), update)


def _initial_state(
  network: hk.TransformedWithState,
  optimizer: optax.GradientTransformation,
  key: chex.PRNGKey,
  batch: Batch,
) -> TrainState:
  """Returns the state before the first update; see `Learner.init`."""
  # Two draws, as in the reference: the target does not start as a copy.
  online_key, target_key = jax.random.split(key)
  init_params, state = _initialiser(network, batch["view1"])
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
