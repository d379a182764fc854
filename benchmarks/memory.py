"""What an update needs on each device: memory, and bytes all-reduced.

    python -m benchmarks.memory --encoder=ResNet50 --batch_size=64

Traces the update that training runs, with convolutions as accelerators compute
them, and counts arrays; it runs nothing. Prints a table and last a JSON line.
--batch_size is the images of one device; --microbatches, --precision and --remat
are the configuration's. --compile asks the compiler of the device at hand, too,
which takes its time: what a gradient needs beside its arguments and result.

Activations are what the pullback of `jax.vjp` keeps of the loss beside its
arguments: each array once, whatever its shape, and no constants. With --remat, the
dearest block is added, as it is computed again. A compiler may keep less, by
computing cheap things twice, and needs working space beside it.
"""

import argparse
import json
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

from byol_jax import config as config_lib
from byol_jax.learning import learner
from byol_jax.models import describe
from byol_jax.runtime import cpu, devices, platforms
from byol_jax.training import build, plan

_CLASSES, _IMAGES = 1000, 1_281_167  # ImageNet's.
_IN_FLIGHT = 3  # Batches on a device: two of `devices.prefetch`, one in use.


def main() -> None:
  """Counts for the configuration that the command line asks for."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--encoder", default="ResNet50")
  parser.add_argument("--stem", default="imagenet")
  parser.add_argument("--width", type=float, default=1.0)
  parser.add_argument("--image_size", type=int, default=224)
  parser.add_argument("--batch_size", type=int, default=64)
  parser.add_argument("--microbatches", type=int, default=1)
  parser.add_argument("--precision", default="float32")
  parser.add_argument("--remat", action="store_true")
  parser.add_argument("--compile", action="store_true")
  options = parser.parse_args()
  cpu.choose_fast_convolutions()
  counted = count(options)
  for name, value in counted.items():
    print(f"{name:28}{value:18,}")
  print(json.dumps({"benchmark": "memory", **vars(options), **counted}))


# CPUs compute convolutions in another form and all-reduce gradients as one array.
@platforms.assume("gpu")
def count(options: argparse.Namespace) -> dict[str, int]:
  """All figures by name, as on an accelerator; bytes, unless the name tells."""
  config = config_lib.default_config()
  config.model.encoder.name = options.encoder
  config.model.encoder.stem = options.stem
  config.model.encoder.width = options.width
  config.train.batch_size = options.batch_size
  config.train.microbatches = options.microbatches
  config.train.precision = options.precision
  config.train.remat = options.remat
  network = build.build_network(config, _CLASSES)
  planned = plan.make_plan(config, _IMAGES)
  pure = build.build_learner(config, planned, _CLASSES)
  views = (options.batch_size, options.image_size, options.image_size, 3)
  batch = _batch(views)
  state = jax.eval_shape(pure.init, jax.random.key(0), batch)
  part = _batch((options.batch_size // options.microbatches, *views[1:]))

  def loss(params, state, batch):
    return learner.loss_fn(network, params, state, batch, jnp.ones(()))[0]

  activations = saved_bytes(loss, state.online_params, state, part)
  if options.remat:
    activations += dearest_block(loss, state.online_params, state, part)
  compiled = {}
  if options.compile:
    gradient = jax.jit(jax.grad(loss)).lower(state.online_params, state, part)
    analysis: Any = gradient.compile().memory_analysis()
    compiled["the compiler's activations"] = analysis.temp_size_in_bytes
  reduced = all_reduced(pure.update, state, batch)
  gradients = tree_bytes(state.online_params)
  memory = {
    "online, target, momentum": tree_bytes(state),
    "gradients": gradients,
    # Of micro-batches, one part's beside the sum.
    "gradients of a part": gradients if options.microbatches > 1 else 0,
    "batches in flight": _IN_FLIGHT * tree_bytes(batch),
    "activations": activations,
  }
  arrays = len(jax.tree.leaves(state.online_params))  # Reduced one by one.
  return {
    **{
      f"parameters, {'encoder' if i == 0 else part}": size
      for i, (part, _, _, size) in enumerate(describe.describe(network, views))
    },
    **memory,
    "memory": sum(memory.values()),
    **compiled,
    "all-reduced, gradients": gradients,
    "all-reduced, statistics": sum(reduced) - gradients,
    "all-reduces of these": len(reduced) - arrays,
  }


def _batch(views: tuple[int, ...]) -> dict[str, jax.ShapeDtypeStruct]:
  view = jax.ShapeDtypeStruct(views, jnp.float32)
  label = jax.ShapeDtypeStruct(views[:1], jnp.int32)
  return {"view1": view, "view2": view, "label": label}


def tree_bytes(tree: Any) -> int:
  """Bytes of all arrays of a pytree, or of their shapes."""
  return sum(_bytes(leaf) for leaf in jax.tree.leaves(tree))


def _bytes(array: Any) -> int:
  return math.prod(array.shape) * array.dtype.itemsize


def saved_bytes(fn: Callable[..., Any], *args: Any) -> int:
  """Bytes that the pullback of `fn` by its first argument keeps.

  Beside the arguments themselves. An array and its reshaped self count once;
  what is filled with a constant does not count.

  Args:
    fn: differentiable, to one array or several.
    *args: pytrees of arrays or of their shapes.
  """

  def pullback(first, *others):
    return jax.vjp(lambda first: fn(first, *others), first)[1]

  jaxpr = jax.make_jaxpr(pullback)(*args).jaxpr
  makers = {var: eqn for eqn in jaxpr.eqns for var in eqn.outvars}

  def origin(var):
    while var in makers and _only_reshapes(makers[var]):
      var = makers[var].invars[0]
    return var

  kept = {origin(v) for v in jaxpr.outvars if not isinstance(v, core.Literal)}
  return sum(
    _bytes(var.aval)
    for var in kept
    if var in makers and not _is_constant(makers[var])
  )


def _only_reshapes(eqn: core.JaxprEqn) -> bool:
  """Whether the result holds the same numbers in another shape."""
  return (
    eqn.primitive.name in ("reshape", "squeeze", "broadcast_in_dim")
    and _bytes(eqn.invars[0].aval) == _bytes(eqn.outvars[0].aval)
    and not isinstance(eqn.invars[0], core.Literal)
  )


def _is_constant(eqn: core.JaxprEqn) -> bool:
  return all(isinstance(var, core.Literal) for var in eqn.invars)


def dearest_block(fn: Callable[..., Any], *args: Any) -> int:
  """Bytes of the largest part under `jax.checkpoint`, as it is made again."""
  jaxpr = jax.make_jaxpr(fn)(*args).jaxpr
  # Of the many that are written alike, one is looked at.
  blocks = {
    str(eqn.params["jaxpr"]): eqn
    for eqn, _ in _equations(jaxpr)
    if eqn.primitive.name in ("checkpoint", "remat", "remat2")
  }

  def kept(eqn) -> int:
    call = core.jaxpr_as_fun(core.ClosedJaxpr(eqn.params["jaxpr"], ()))
    avals = [var.aval for var in eqn.invars]
    inputs = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in avals]
    return saved_bytes(lambda inputs: call(*inputs), inputs)

  return max(map(kept, blocks.values()))


def all_reduced(update: Callable[..., Any], *args: Any) -> list[int]:
  """Bytes of each all-reduce of an update, one entry for each time it is done.

  Scalars, as the mean loss is one, go uncounted.
  """

  def on_device(*args):
    return update(*args, axis_name=devices.AXIS)

  axes = [(devices.AXIS, 2)]
  jaxpr = jax.make_jaxpr(on_device, axis_env=axes)(*args).jaxpr
  sizes = []
  for eqn, times in _equations(jaxpr):
    if eqn.primitive.name.startswith("psum"):
      size = sum(_bytes(var.aval) for var in eqn.invars if var.aval.shape)
      sizes += [size] * times * (size > 0)
  return sizes


def _equations(jaxpr: Any, times: int = 1) -> Iterator[tuple[Any, int]]:
  """All equations, those inside others too, and how often they are run."""
  for eqn in jaxpr.eqns:
    yield eqn, times
    inner_times = times * eqn.params.get("length", 1)
    for value in jax.tree.leaves(
      list(eqn.params.values()), is_leaf=lambda v: hasattr(v, "eqns")
    ):
      inner = getattr(value, "jaxpr", value)
      if hasattr(inner, "eqns"):
        yield from _equations(inner, inner_times)


if __name__ == "__main__":
  main()
