"""Counts and times programs, for several benchmarks."""

import math
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def seconds(rounds: int, *programs: Callable[[], Any]) -> list[list[float]]:
  """Returns the seconds of each program by round, without the first round.

  The first round compiles.
  """
  spent: list[list[float]] = [[] for _ in programs]
  for _ in range(rounds + 1):
    for program, of_program in zip(programs, spent, strict=True):
      started = time.perf_counter()
      jax.block_until_ready(program())
      of_program.append(time.perf_counter() - started)
  return [of_program[1:] for of_program in spent]


def forward_flops(network, state, view) -> int:
  """Returns the floating-point operations of one forward pass over both views.

  It counts matrix products and convolutions as textbooks do, whatever the
  program does. An update takes four times as many: a forward pass of each
  network, a gradient by the weights and one by the inputs.

  Args:
    network: from `networks.make_network`.
    state: `TrainState`, of which parameters and statistics are used.
    view: shape and type of a view, [B, H, W, C].
  """

  def forward(params, bn_state, view):
    views = jnp.stack([view, view])
    return network.apply(params, bn_state, views, is_training=True)

  jaxpr = jax.make_jaxpr(forward)(state.online_params, state.online_state, view)
  return _flops(jaxpr.jaxpr)


def _flops(jaxpr) -> int:
  total = 0
  for eqn in jaxpr.eqns:
    shapes = [v.aval.shape for v in eqn.invars if hasattr(v, "aval")]
    size = math.prod(eqn.outvars[0].aval.shape)
    if eqn.primitive.name == "dot_general":
      ((contracted, _), _) = eqn.params["dimension_numbers"]
      total += 2 * size * math.prod(shapes[0][i] for i in contracted)
    elif [len(shape) for shape in shapes] == [4, 4] and (
      eqn.primitive.name in ("conv_general_dilated", "custom_vjp_call")
    ):
      total += 2 * size * math.prod(shapes[1][:3])
    else:
      for value in eqn.params.values():
        inner = getattr(value, "jaxpr", value)
        if hasattr(inner, "eqns"):
          total += _flops(inner)
  return total
