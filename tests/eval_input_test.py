"""Batches for evaluations: each example once, and random crops."""

import dataclasses
import itertools

import numpy as np
import pytest
import tensorflow_datasets as tfds

from byol_jax import errors
from byol_jax.data import crops, eval_input
from byol_jax.data import source as source_lib
from byol_jax.data.source import ProcessSlice
from tests.input_cases import (
  CROP_ONLY,
  OPTIONS,
  SIZE,
  changed,
  eval_batches,
  labels,
)


def test_grey_evaluation_images_have_one_channel(source):
  (grey,) = eval_batches(source, "train[:7]", channels=1)
  (colour,) = eval_batches(source, "train[:7]")
  assert grey["image"].shape == (7, 16, 16, 1)
  luminance = colour["image"] @ np.array([0.299, 0.587, 0.114])
  assert np.median(np.abs(grey["image"][..., 0] - luminance)) < 1 / 255


@pytest.mark.parametrize("batch_size", [1, 10, 96, 97, 98])
def test_evaluation_sees_every_example_once(source, batch_size):
  found = eval_batches(source, batch_size=batch_size)
  assert all(len(batch["label"]) == batch_size for batch in found[:-1])
  np.testing.assert_array_equal(np.sort(labels(found)), np.arange(SIZE))


@pytest.mark.parametrize("batch_size", [1, 10, 32, 98])
def test_processes_take_batches_of_an_evaluation_in_turn(source, batch_size):
  of_each = [
    eval_batches(source, batch_size=batch_size, process=ProcessSlice(i, 3))
    for i in range(3)
  ]
  turns = zip(
    *of_each, strict=True
  )  # The same number each, so that none waits.
  in_order = labels([batch for turn in turns for batch in turn])
  expected = labels(eval_batches(source))
  np.testing.assert_array_equal(in_order[:SIZE], expected)
  assert set(in_order[SIZE:]) <= {expected[0]}
  assert len(in_order) % (3 * batch_size) == 0


def test_evaluation_keeps_the_order_of_the_files(source):
  stored = [
    example["label"]
    for example in tfds.as_numpy(
      source.builder.as_dataset(
        split="train",
        read_config=tfds.ReadConfig(interleave_cycle_length=1),
      )
    )
  ]
  np.testing.assert_array_equal(labels(eval_batches(source)), stored)


def test_evaluation_images_are_central_squares(source):
  (batch,) = eval_batches(source, "train[:7]")
  examples = tfds.as_numpy(source.builder.as_dataset(split="train[:7]"))
  for image, example in zip(batch["image"], examples, strict=True):
    expected = crops.centre_crop(example["image"], (16, 16), 0.875)
    np.testing.assert_allclose(image, expected, atol=1e-6)


def test_part_of_a_split_is_evaluated_alone(source):
  stored = labels(eval_batches(source))
  part = labels(eval_batches(source, "train[30:71]"))
  np.testing.assert_array_equal(part, stored[30:71])


def test_evaluation_of_some_indices_is_that_part_of_all(source):
  stored = labels(eval_batches(source))
  part = labels(eval_batches(source, indices=range(30, 71)))
  np.testing.assert_array_equal(part, stored[30:71])


def test_an_unknown_evaluation_split_is_refused_at_once(source):
  with pytest.raises(errors.UserError, match="one of: train"):
    eval_input.eval_batches(
      source, "test", source_lib.CentreCrop((8, 8), 1.0), batch_size=1
    )


def labelled(source, count, indices, split="train", **changes):
  """The first batches; changes are of the crop, the options or arguments."""
  crop = changed(source_lib.RandomCrop((16, 16), CROP_ONLY), changes)
  options = changed(OPTIONS, changes)
  iterator = eval_input.labelled_batches(
    source,
    split,
    indices,
    crop,
    options,
    **({"batch_size": 10, "seed": 0} | changes),
  )
  return list(itertools.islice(iterator, count))


@pytest.mark.parametrize("cache_bytes", [0, 2**30])
@pytest.mark.parametrize(
  "indices", [range(97), range(30, 71), np.array([3, 5, 8, 60, 96])], ids=str
)
def test_labelled_batches_hold_each_index_once_per_epoch(
  source, indices, cache_bytes
):
  stored = labels(eval_batches(source))
  size = len(indices)
  found = labels(labelled(source, 30, indices, cache_bytes=cache_bytes))
  for epoch in (found[:size], found[size : 2 * size]):
    np.testing.assert_array_equal(np.sort(epoch), np.sort(stored[indices]))
  assert np.any(found[:size] != found[size : 2 * size])


def test_processes_share_labelled_batches(source):
  whole = labelled(source, 8, range(SIZE), batch_size=7)
  of_each = [
    labelled(source, 8, range(SIZE), batch_size=7, process=ProcessSlice(i, 3))
    for i in range(3)
  ]
  for batch, *slices in zip(whole, *of_each, strict=True):
    for name, value in batch.items():
      together = np.concatenate([part[name] for part in slices])
      np.testing.assert_array_equal(together, value)


def test_labelled_batches_are_a_function_of_the_seed(source):
  first, again, other = (
    labelled(source, 2, range(97), seed=seed) for seed in (0, 0, 1)
  )
  for a, b in zip(first, again, strict=True):
    np.testing.assert_array_equal(a["image"], b["image"])
  assert np.any(first[0]["image"] != other[0]["image"])


def test_labelled_crops_of_the_whole_image_are_flipped_as_often_as_asked(
  source,
):
  whole = dataclasses.replace(
    CROP_ONLY, crop_area=(1.0, 1.0), crop_aspect=(1.0, 1.0)
  )
  indices = np.array([40])
  (plain,) = labelled(source, 1, indices, region=whole)
  np.testing.assert_array_equal(plain["image"][0], plain["image"][9])
  assert plain["image"].min() >= 0
  assert plain["image"].max() <= 1
  flipped = labelled(
    source, 1, indices, region=dataclasses.replace(whole, flip_prob=1.0)
  )
  np.testing.assert_array_equal(flipped[0]["image"], plain["image"][:, :, ::-1])
