"""Counts of `benchmarks.memory` against counts by hand."""

import argparse

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import memory

FLOAT = 4


def loss(params, x):
  hidden = jnp.sin(x @ params["first"])
  return jnp.sum(hidden @ params["second"])


PARAMS = {
  "first": np.zeros((3, 5), np.float32),
  "second": np.zeros((5, 7), np.float32),
}
X = np.zeros((2, 3), np.float32)


def test_what_a_gradient_keeps_is_what_a_count_by_hand_says():
  # The cosine and the hidden layer; x and the weights are arguments.
  assert memory.saved_bytes(loss, PARAMS, X) == 2 * (2 * 5) * FLOAT


def test_reshaped_arrays_count_once():
  def product(w, x):
    y = jnp.sin(x)  # Kept once, though used by two shapes.
    return jnp.sum(y @ w) + jnp.sum(y.reshape(-1)[None] @ w.reshape(-1, 1))

  shapes = jnp.zeros((3, 2)), jnp.zeros((2, 3))
  assert memory.saved_bytes(product, *shapes) == 2 * 3 * FLOAT


def test_of_checkpointed_blocks_the_dearest_counts():
  def blocks(w, x):
    for layers in (1, 3):

      def block(w, x, layers=layers):
        for _ in range(layers):
          x = jnp.sin(x * w)
        return x

      x = jax.checkpoint(block)(w, x)
    return jnp.sum(x)

  args = jnp.ones(4), jnp.ones(4)
  # Between two blocks, one array; inside the dear one, a cosine of each sine and
  # two of the products' factors, the first being an argument.
  assert memory.saved_bytes(blocks, *args) == 4 * FLOAT
  assert memory.dearest_block(blocks, *args) == (3 + 2) * 4 * FLOAT


def test_every_all_reduce_of_a_loop_is_counted():
  def update(x, axis_name):
    def add(total, part):
      return total + jax.lax.pmean(part, axis_name), None

    total, _ = jax.lax.scan(add, jnp.zeros(5), x)
    return jax.lax.pmean((total, jnp.sum(total)), axis_name)

  # Three times the part, once the total; the scalar is not counted.
  assert memory.all_reduced(update, jnp.zeros((3, 5))) == [5 * FLOAT] * 4


def test_what_batch_norms_share_is_told_from_gradients():
  options = argparse.Namespace(
    encoder="TinyResNet",
    stem="imagenet",
    width=1.0,
    image_size=16,
    batch_size=4,
    microbatches=1,
    precision="float32",
    remat=False,
    compile=False,
  )
  counted = memory.count(options)
  # Four blocks of two and a shortcut, the stem, two heads; online, target and the
  # gradient.
  channels = 8 * 3 * 4 + 64 + 2 * 4096
  assert counted["all-reduces of these"] == 3 * (3 * 4 + 1 + 2)
  assert counted["all-reduced, statistics"] == 3 * channels * 2 * 2 * FLOAT
