"""Training batches: views, labels and sizes."""

import dataclasses

import jax
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from byol_jax import errors
from byol_jax.augment import device_ops, sampling, spec
from byol_jax.data import crops, host_ops, loading, train_input
from byol_jax.data.source import ProcessSlice
from tests.input_cases import (
  CROP_ONLY,
  OPTIONS,
  PAPER,
  SIZE,
  VIEWS,
  eval_batches,
  images_by_label,
  labels,
  train_batches,
)


def test_batch_is_what_the_learner_expects(source):
  (batch,) = train_batches(source, 1, **PAPER)
  for name in ("view1", "view2"):
    assert batch[name].shape == (10, 16, 16, 3)
    assert batch[name].dtype == np.float32
    assert batch[name].min() >= 0
    assert batch[name].max() <= 1
  assert batch["label"].shape == (10,)
  assert batch["label"].dtype == np.int32


def test_views_of_an_example_change_with_its_position_in_the_stream(source):
  first, second = train_batches(source, 2, batch_size=SIZE)
  (i,) = np.flatnonzero(first["label"] == 3)
  (j,) = np.flatnonzero(second["label"] == 3)
  assert not np.allclose(first["view1"][i], second["view1"][j])


def test_views_are_two_views_of_seed_and_position(source):
  images = images_by_label(source)
  here = {"seed": 5, "start_step": 12, **PAPER}
  (batch,) = train_batches(source, 1, **here)
  (on_device,) = train_batches(source, 1, **here, placement="device")
  np.testing.assert_array_equal(on_device["label"], batch["label"])
  enabled = spec.enabled_ops(*PAPER.values())

  @tf.function(jit_compile=True)
  def apply(crops, params):
    return host_ops.apply(crops, params, enabled)

  for i in range(10):
    crops_and_numbers = crops.two_random_crops(
      images[batch["label"][i]],
      spec.Views(*PAPER.values(), (16, 16)),
      np.array([5, 120 + i], np.int64),
    )
    for j in (0, 1):
      crop, numbers = crops_and_numbers[j], crops_and_numbers[2 + j]
      view = PAPER[f"view{j + 1}"]
      params = sampling.augment_params(tf, numbers[None], view, enabled)
      (expected,) = apply(crop[None], params)
      np.testing.assert_allclose(batch[f"view{j + 1}"][i], expected, atol=1e-6)
      jax.tree.map(
        lambda field, of_one, i=i: np.testing.assert_allclose(
          field[i], of_one[0], rtol=1e-6
        ),
        on_device[f"params{j + 1}"],
        params,
      )


def test_device_gets_the_crops_of_the_host_as_bytes(source):
  plain = {"view1": CROP_ONLY, "view2": CROP_ONLY}
  (host,) = train_batches(source, 1, **plain)
  (device,) = train_batches(source, 1, **plain, placement="device")
  for name in ("view1", "view2"):
    assert device[name].shape == (10, 16, 16, 3)
    assert device[name].dtype == np.uint8
    difference = np.abs(device[name] / 255 - host[name])
    assert difference.max() <= 0.5 / 255 + 1e-6


def test_views_of_the_device_are_those_of_the_host_up_to_rounding(source):
  # Without contrast, hue and saturation nothing enlarges a rounded byte much.
  view = dataclasses.replace(
    CROP_ONLY,
    flip_prob=0.5,
    jitter_prob=0.8,
    brightness=0.4,
    grayscale_prob=0.2,
    contrast=0.0,
    saturation=0.0,
    hue=0.0,
    solarize_prob=0.5,
    blur_prob=0.5,
  )
  changes = {"view1": view, "view2": view, "image_shape": (24, 24)}
  (host,) = train_batches(source, 1, **changes)
  (device,) = train_batches(source, 1, **changes, placement="device")
  enabled = spec.enabled_ops(view)
  for i in (1, 2):
    finished = device_ops.apply(
      device[f"view{i}"], device[f"params{i}"], enabled
    )
    difference = np.abs(finished - host[f"view{i}"])
    assert difference.max() <= 0.5 / 255 + 1e-5


@pytest.mark.parametrize("placement", ["host", "device"])
def test_grey_views_have_one_channel(source, placement):
  plain = {"view1": CROP_ONLY, "view2": CROP_ONLY, "placement": placement}
  (grey,) = train_batches(source, 1, channels=1, **plain)
  (colour,) = train_batches(source, 1, **plain)
  scale = 255 if placement == "device" else 1
  for name in ("view1", "view2"):
    assert grey[name].shape == (10, 16, 16, 1)
    luminance = colour[name] / scale @ np.array([0.299, 0.587, 0.114])
    # Images are made grey before they are resized, and clipped after it.
    difference = np.abs(grey[name][..., 0] / scale - luminance)
    assert np.median(difference) < 1 / 255
    assert difference.max() < 0.1


@pytest.mark.parametrize(("count", "side"), [(7, 16), (5, 224), (1, 16)])
def test_first_views_are_those_of_the_first_step(source, count, side):
  views = VIEWS._replace(image_shape=(side, side))
  originals, batch = train_input.first_views(
    source, views, OPTIONS, count=count, seed=3
  )
  (first,) = train_batches(source, 1, seed=3, image_shape=(side, side))
  assert len(originals) == count
  for name in ("view1", "view2"):
    np.testing.assert_allclose(batch[name], first[name][:count], atol=1e-6)
  images = images_by_label(source)
  for original, label in zip(originals, first["label"], strict=False):
    np.testing.assert_array_equal(original, images[label])


def test_first_views_for_a_device_are_crops_and_parameters(source):
  views = VIEWS._replace(placement="device", channels=1)
  originals, batch = train_input.first_views(
    source, views, OPTIONS, count=3, seed=3
  )
  assert originals[0].shape == (24, 20, 1)
  assert batch["view1"].shape == (3, 16, 16, 1)
  assert batch["params1"].sigma.shape == (3,)


def test_batch_may_be_the_whole_split(source):
  (batch,) = train_batches(source, 1, batch_size=SIZE)
  np.testing.assert_array_equal(np.sort(batch["label"]), np.arange(SIZE))


def test_labels_that_tfds_hides_are_minus_one(tmp_path):
  store_unlabelled(tmp_path, tfds.features.ClassLabel(num_classes=2), -1)
  source = loading.load("stl10", str(tmp_path))
  assert source.num_classes == 2
  stream = labels(train_batches(source, 1, batch_size=8))
  np.testing.assert_array_equal(np.sort(stream), [-1, -1, -1, -1, 1, 1, 1, 1])


def test_data_set_without_labels_gives_minus_one(tmp_path):
  store_unlabelled(tmp_path, None, None)
  source = loading.load("stl10", str(tmp_path))
  assert source.num_classes == 0
  np.testing.assert_array_equal(
    labels(train_batches(source, 1, batch_size=8)), -1
  )
  evaluated = labels(eval_batches(source))
  np.testing.assert_array_equal(evaluated, [-1] * 4)


def store_unlabelled(folder, label_feature, unlabelled):
  """A small STL-10: half of its pretraining split has labels."""
  image = np.zeros((9, 9, 1), np.uint8)
  features = {"image": tfds.features.Image(shape=(9, 9, 1))}
  splits = {"unlabelled": {"image": image}, "train": {"image": image}}
  if label_feature:
    features["label"] = label_feature
    splits["unlabelled"]["label"] = unlabelled
    splits["train"]["label"] = 1
  tfds.dataset_builders.store_as_tfds_dataset(
    name="stl10",
    version="1.0.0",
    data_dir=folder,
    features=tfds.features.FeaturesDict(features),
    split_datasets={
      name: [(i, example) for i in range(4)] for name, example in splits.items()
    },
  )


def test_digits_come_with_three_channels(digits_dir):
  digits = loading.load("mnist_digits", digits_dir)
  (batch,) = train_batches(digits, 1, image_shape=(28, 28))
  assert batch["view1"].shape == (10, 28, 28, 3)
  total = sum(len(b["label"]) for b in eval_batches(digits, "test"))
  assert total == 1000


@pytest.mark.parametrize(
  ("changes", "parts"),
  [
    ({"batch_size": 98}, ("98", "97", "lower")),
    ({"parts": 4}, ("10", "data.parts=4", "try 8 or 12")),
    (
      {"parts": 4, "process": ProcessSlice(0, 4)},
      ("data.parts=4", "try 8 or 12"),
    ),
    ({"process": ProcessSlice(0, 3)}, ("10", "the 3 processes", "try 9 or 12")),
  ],
)
def test_a_batch_size_that_does_not_fit_is_explained_in_one_line(
  source, changes, parts
):
  with pytest.raises(errors.UserError) as info:
    train_batches(source, 1, **changes)
  assert "\n" not in str(info.value)
  for part in parts:
    assert part in str(info.value)
