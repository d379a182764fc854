"""Images on the device give the order and the views of the host."""

import functools
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow as tf

from byol_jax import errors
from byol_jax.augment import (
  device_batches,
  device_crops,
  device_random,
  spec,
)
from byol_jax.config import convert, schema
from byol_jax.data import crops, decode_all
from byol_jax.data import stream as record_stream
from byol_jax.training import residence, resolve
from tests import command_line, input_cases
from tests.augment_cases import noise, paper_view

LARGE = 2**40 + 5


def wide(value):
  value = np.asarray(value, np.uint64)
  return tuple(
    jnp.asarray((value >> np.uint64(shift)) & np.uint64(2**32 - 1), jnp.uint32)
    for shift in (32, 0)
  )


@pytest.mark.parametrize("seed", [0, 7, 2**32 - 1])
def test_random_numbers_are_those_of_tensorflow(seed):
  positions = [0, 1, 2**32 - 1, 2**32, LARGE]
  actual = device_random.uniform((wide(seed), wide(positions)), 7)
  expected = [
    tf.random.stateless_uniform([7], tf.constant([seed, p], tf.int64))
    for p in positions
  ]
  np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("size", [1, 2, 97, 65536, 65537, 100_000])
@pytest.mark.parametrize("seed", [0, 2**31 + 3])
def test_orders_are_those_of_tensorflow(size, seed):
  of_run = tf.random.fold_in(tf.stack([tf.cast(seed, tf.int64), -1]), 0)
  index = np.unique(np.linspace(0, size - 1, 300).astype(np.int64))
  for epoch in (0, 3):
    seeds = tf.random.fold_in(of_run, tf.constant(epoch, tf.int64))
    expected = tf.random.experimental.index_shuffle(index, seeds, size - 1)
    seeds = device_random.epoch_seeds(
      device_random.part_seeds(seed, 0), jnp.uint32(epoch)
    )
    shuffled = device_random.shuffle(jnp.uint32(index), seeds, size)
    np.testing.assert_array_equal(shuffled, expected)


@pytest.mark.parametrize("step", [0, 1, 97, 12345, 2**31 - 1])
@pytest.mark.parametrize(("batch", "size"), [(10, 97), (4096, 1_281_167)])
def test_positions_are_divided_exactly(step, batch, size):
  actual = device_batches._divide(jnp.int32(step), batch, size)
  assert tuple(map(int, actual)) == divmod(step * batch, size)


@pytest.mark.parametrize(
  ("shape", "size"),
  [((28, 28, 1), 32), ((32, 32, 3), 32), ((90, 121, 3), 64), ((5, 300, 3), 24)],
)
def test_crops_are_those_of_the_host(shape, size):
  image = noise(*shape)
  views = spec.Views(paper_view("view1"), paper_view("view2"), (size, size))
  padded = np.pad(image, ((0, 7), (0, 3), (0, 0)), constant_values=200)
  numbers, expected = [], []
  for i in range(20):
    *pair, numbers1, numbers2 = crops.two_random_crops(
      tf.constant(image), views, tf.constant([3, i], tf.int64)
    )
    numbers.append([numbers1, numbers2])
    expected.append([x[..., : shape[-1]] for x in pair])
  actual = jax.jit(functools.partial(device_crops.random_crops, views=views))(
    np.stack([padded] * 20),
    np.array([shape[:2]] * 20, np.int32),
    np.array(numbers),
  )
  expected = np.clip(np.round(np.array(expected)), 0, 255)
  differences = np.abs(np.stack(actual, 1).astype(float) - expected)
  assert differences.max() <= 1
  assert (differences > 0).mean() < 1e-3  # Where the exact value is a half.


PAPER = spec.Views(paper_view("view1"), paper_view("view2"), (16, 16))


def draw(source, step, parts=1, sharded=False, batch_size=10):
  """A batch, drawn on several virtual devices in turn."""
  table = decode_all.decode(source, "train", 3)._asdict()
  table = jax.tree.map(jnp.asarray, table)
  stream = device_batches.Stream(PAPER, 0, input_cases.SIZE, batch_size)
  if parts == 1:
    return device_batches.draw(stream, table, jnp.int32(step))
  if sharded:
    of_each = -(-input_cases.SIZE // parts)
    rows = np.minimum(np.arange(parts * of_each), input_cases.SIZE - 1)
    table = {
      name: x[rows].reshape(parts, of_each, *x.shape[1:])
      for name, x in table.items()
    }
  drawn = jax.vmap(
    lambda table: device_batches.draw(stream, table, jnp.int32(step), "d"),
    in_axes=0 if sharded else None,
    axis_name="d",
    axis_size=parts,
  )(table)
  return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), drawn)


def test_batches_are_those_of_the_host(source):
  options = {"cache_bytes": 2**30, "placement": "device", "view1": PAPER.view1}
  options |= {"view2": PAPER.view2}
  expected = input_cases.train_batches(source, 12, **options)
  for step in (0, 1, 9, 11):  # The first epoch ends within batch 9.
    actual = jax.device_get(draw(source, step))
    host = expected[step]
    np.testing.assert_array_equal(actual["label"], host["label"])
    for name in ("params1", "params2"):
      for a, b in zip(actual[name], host[name], strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    for name in ("view1", "view2"):
      difference = np.abs(actual[name].astype(int) - host[name])
      assert difference.max() <= 1


def test_large_images_are_resized_in_turns(source, monkeypatch):
  whole = jax.device_get(draw(source, 2))
  monkeypatch.setattr(device_crops, "_PIXELS_TOGETHER", 3 * 24 * 20)
  for name, leaf in jax.device_get(draw(source, 2)).items():
    jax.tree.map(np.testing.assert_array_equal, leaf, whole[name])


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("parts", [2, 5])
def test_any_number_of_devices_draws_the_same_batch(source, parts, sharded):
  one, several = draw(source, 9), draw(source, 9, parts, sharded)
  jax.tree.map(np.testing.assert_array_equal, several, one)


def test_images_are_decoded_in_the_order_of_the_files(source):
  images = input_cases.images_by_label(source)
  everything = decode_all.decode(source, "train", 3)
  assert everything.pixels.shape == (97, 24, 20, 3)
  assert np.all(everything.sizes == (24, 20))
  for label, image in zip(everything.labels, everything.pixels, strict=True):
    np.testing.assert_array_equal(image, images[label])
  part = decode_all.decode(source, "train", 3, range(40, 50))
  np.testing.assert_array_equal(part.pixels, everything.pixels[40:50])


def config_of(batch_size=10) -> schema.Config:
  config = schema.Config()
  config.data.placement = "device"
  config.train.batch_size = batch_size
  return config


@pytest.mark.parametrize(
  ("share", "told"),
  [
    (1.0, "they take 0 MB of each."),
    (0.7 * 97 * 24 * 20 * 3, "which holds a part of them."),
  ],
)
def test_images_are_placed_whole_or_in_parts(source, monkeypatch, share, told):
  """Two devices draw the batch of one."""
  if share > 1:
    monkeypatch.setattr(residence, "_SHARE", share)
    monkeypatch.setattr(residence, "_device_memory", lambda: 1)
  lines: list[str] = []
  table = residence.place(config_of(), source, lines.append)
  assert lines[0].startswith("97 images of up to 24x20x3 are on the devices")
  assert lines[0].endswith(told)
  stream = device_batches.Stream(PAPER, 0, input_cases.SIZE, 10)
  drawn = jax.pmap(
    lambda table: device_batches.draw(stream, table, jnp.int32(9), "d"),
    axis_name="d",
  )(table)
  drawn = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), drawn)
  # Another compilation may round a parameter the other way.
  same = functools.partial(np.testing.assert_allclose, atol=1e-6)
  jax.tree.map(same, jax.device_get(drawn), jax.device_get(draw(source, 9)))


def test_images_that_do_not_fit_are_refused(source, monkeypatch):
  monkeypatch.setattr(residence, "_device_memory", lambda: 1000)
  with pytest.raises(
    errors.UserError, match=r"does not fit: 97 images"
  ) as info:
    residence.place(config_of(), source, print)
  assert "or data.placement=host" in str(info.value)
  with pytest.raises(errors.UserError, match="is larger than the 97 examples"):
    residence.place(config_of(batch_size=98), source, print)


def test_images_are_refused_before_all_are_decoded(source, monkeypatch):
  """A data set that is too large for the devices may be so for the host, too."""
  monkeypatch.setattr(residence, "_device_memory", lambda: 1000)
  decoded = []
  iterate = record_stream.iterate

  def counting(examples):
    for example in iterate(examples):
      decoded.append(example)
      yield example

  monkeypatch.setattr(record_stream, "iterate", counting)
  with pytest.raises(errors.UserError, match="does not fit"):
    residence.place(config_of(), source, print)
  assert len(decoded) == 1


def test_a_run_of_several_parts_cannot_go_on_from_the_device(source):
  config = convert.typed(config_of())
  assert resolve.resolved(config, source, None).data.parts == 1
  with pytest.raises(errors.UserError, match=r"data\.parts=2 must be 1"):
    resolve.resolved(config, source, 2)


def resident(workdir):
  return (
    *command_line.pretraining(workdir, steps=20, checkpoint_every=4),
    "--config.data.placement=device",
  )


@pytest.mark.slow
def test_runs_end_alike_resumed_and_in_two_processes(tmp_path, digits_dir):
  whole, cut, two = (tmp_path / name for name in ("whole", "cut", "two"))
  done = command_line.run(*resident(whole), data_dir=digits_dir, devices=2)
  assert done.returncode == 0, done.stderr
  assert "images of up to 28x28x3 are on the devices" in done.stdout
  expected = command_line.saved_leaves(whole, 20)

  killed = command_line.run_and_signal(
    *resident(cut),
    signum=signal.SIGKILL,
    when=cut / "metrics.jsonl",
    lines=6,
    data_dir=digits_dir,
    devices=2,
  )
  assert killed.returncode == -signal.SIGKILL
  done = command_line.run(*resident(cut), data_dir=digits_dir, devices=2)
  assert done.returncode == 0, done.stderr
  for name, leaf in command_line.saved_leaves(cut, 20).items():
    np.testing.assert_array_equal(leaf, expected[name], err_msg=name)

  pair = command_line.start_pair(*resident(two), data_dir=digits_dir)
  for done in map(command_line.ended, pair):
    assert done.returncode == 0, done.stderr
  for name, leaf in command_line.saved_leaves(two, 20).items():
    np.testing.assert_allclose(
      leaf, expected[name], rtol=1e-5, atol=1e-5, err_msg=name
    )
