"""The host's random numbers and shuffles, in JAX.

The host draws by `tf.random.stateless_uniform`, `fold_in` and `index_shuffle`.
These functions return the same bits, computed in uint32, so that a run sees the
same order and the same views wherever its data are. A number of 64 bits is a pair
of uint32 arrays, the high half and the low half.

Salmon et al. 2011 (Random123) describe Philox; Beaulieu et al. 2013 (eprint
2013/404) describe Simon, of which TensorFlow takes four rounds for a shuffle.
"""

import chex
import jax
import jax.numpy as jnp
import numpy as np

Wide = tuple[chex.Array, chex.Array]  # High and low half of 64 bits.

_PHILOX_ROUNDS = 10
_PHILOX_FACTORS = (0xD2511F53, 0xCD9E8D57)
_PHILOX_STEPS = (0x9E3779B9, 0xBB67AE85)
# With this key TensorFlow scrambles a seed before its first use.
_SCRAMBLING_KEY = (0x3EC8F720, 0x02461E29)
# The first of the three words that TensorFlow keys a shuffle with.
_SHUFFLE_WORD = 498247692
_SMALLEST_BLOCK = 16  # Bits that a shuffle permutes at least.
# Steps of a shuffle between two tests of whether all indices are in range. Our
# choice: a test costs an accelerator as much as many steps.
_STEPS_PER_TEST = 16


def u32(value: int) -> chex.Array:
  """Returns the low 32 bits of an integer."""
  return jnp.uint32(value & 0xFFFFFFFF)


def multiply(a: chex.Array, b: chex.Array) -> Wide:
  """Returns the product of two uint32 arrays in 64 bits."""
  a_low, a_high = a & 0xFFFF, a >> 16
  b_low, b_high = b & 0xFFFF, b >> 16
  low, high = a_low * b_low, a_high * b_high
  middle = a_high * b_low + (low >> 16)
  other = a_low * b_high + (middle & 0xFFFF)
  return high + (middle >> 16) + (other >> 16), a * b


def add(wide: Wide, b: chex.Array) -> Wide:
  """Returns the sum of a number of 64 bits and a uint32 array."""
  high, low = wide
  total = low + b
  return high + (total < b).astype(jnp.uint32), total


def uniform(seed: tuple[Wide, Wide], count: int) -> chex.Array:
  """Returns what `tf.random.stateless_uniform([count], seed)` returns.

  Args:
    seed: its two numbers; all parts have one shape, or scalars.
    count: of numbers for each seed.

  Returns:
    [..., count] float32 in [0, 1).
  """
  bits = _random_bits(seed, count)
  floats = jax.lax.bitcast_convert_type(
    (bits & 0x7FFFFF) | jnp.uint32(127 << 23), jnp.float32
  )
  return floats - 1.0


def wide(value: int) -> Wide:
  """Returns an integer of 64 bits."""
  return u32(value >> 32), u32(value)


def part_seeds(seed: int, part: int) -> tuple[Wide, Wide]:
  """Returns the seeds of a part of the split that is pretrained on.

  They are `tf.random.fold_in([seed, -1], part)`, with a part of 32 bits.
  """
  first = _random_bits((wide(seed), wide(-1)), 1)[..., 0]  # As int32.
  sign = jnp.uint32(0) - (first >> 31)
  return (sign, first), wide(part)


def epoch_seeds(seeds: tuple[Wide, Wide], epoch: chex.Array) -> Wide:
  """Returns what `shuffle` takes for an epoch.

  It is `tf.random.fold_in(seeds, epoch)` with an epoch of 64 bits, of which
  `index_shuffle` reads the low halves.

  Args:
    seeds: of all epochs.
    epoch: uint32.
  """
  first = _random_bits(seeds, 1)[..., 0]
  return jnp.broadcast_to(first, epoch.shape), epoch


def shuffle(
  index: chex.Array, seeds: tuple[chex.Array, chex.Array], size: int
) -> chex.Array:
  """Returns `tf.random.experimental.index_shuffle(index, seeds, size - 1)`.

  Args:
    index: [N] uint32 below `size`.
    seeds: the low halves of both seeds, uint32 that broadcast to [N].
    size: number of indices, at most 2**31.

  Returns:
    [N] uint32 below `size`: the images of the indices under a permutation.
  """
  if size == 1:
    return jnp.zeros_like(index)
  bits = int(np.ceil(np.log2(size - 1)))
  word = max(bits + bits % 2, _SMALLEST_BLOCK) // 2
  mask = jnp.uint32(2**word - 1)

  def left(x, places):
    return ((x << places) | (x >> (word - places))) & mask

  def right(x, places):
    return ((x >> places) | (x << (word - places))) & mask

  def mixed(x):
    return (left(x, 1) & left(x, 8)) ^ left(x, 2)

  keys = [key & mask for key in (u32(_SHUFFLE_WORD), *seeds)]
  last = u32(0xFFFFFFFC ^ 1) ^ keys[0] ^ right(keys[2], 3) ^ right(keys[2], 4)
  keys.append(last & mask)

  def encrypted(x):
    high, low = (x >> word) & mask, x & mask
    for first, second in (keys[:2], keys[2:]):
      high = high ^ mixed(low) ^ first
      low = low ^ mixed(high) ^ second
    return (high << word) | low

  def steps(x):
    # Indices beyond the range walk on along their cycle until they are in it.
    for _ in range(_STEPS_PER_TEST):
      x = jnp.where(x < size, x, encrypted(x))
    return x

  return jax.lax.while_loop(
    lambda x: jnp.any(x >= size), steps, steps(encrypted(index))
  )


def _random_bits(seed: tuple[Wide, Wide], count: int) -> chex.Array:
  """Returns `count` random words for each seed, [..., count] uint32."""
  (high0, low0), (high1, low1) = seed
  words = jnp.broadcast_arrays(low0, high0, low1, high1)
  *key, third, fourth = _philox(words, [u32(k) for k in _SCRAMBLING_KEY])
  groups = -(-count // 4)
  zero = jnp.zeros_like(third)
  blocks = [
    _philox((zero + jnp.uint32(i), zero, third, fourth), key)
    for i in range(groups)
  ]
  return jnp.stack([x for block in blocks for x in block], axis=-1)[..., :count]


def _philox(counter, key) -> list[chex.Array]:
  """Returns Philox 4x32 of a counter of four words and a key of two."""
  a, b, c, d = counter
  key0, key1 = key
  for _ in range(_PHILOX_ROUNDS):
    high0, low0 = multiply(u32(_PHILOX_FACTORS[0]), a)
    high1, low1 = multiply(u32(_PHILOX_FACTORS[1]), c)
    a, b, c, d = high1 ^ b ^ key0, low1, high0 ^ d ^ key1, low0
    key0, key1 = key0 + u32(_PHILOX_STEPS[0]), key1 + u32(_PHILOX_STEPS[1])
  return [a, b, c, d]
