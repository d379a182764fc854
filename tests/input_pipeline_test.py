"""The global stream: same batches however they are cut up or resumed."""

import itertools

import numpy as np
import pytest
import tensorflow_datasets as tfds

from byol_jax import augment, config, datasets, errors, input_pipeline

SIZE = 97  # Prime, so no batch size fits.
SHARDS = 5
VIEWS = config.default_config().augment


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> datasets.Source:
  """97 examples in five files, whose labels are their names."""
  folder = tmp_path_factory.mktemp("sharded")
  rng = np.random.RandomState(0)
  examples = [
    (
      i,
      {
        "image": rng.randint(0, 256, (24, 20, 3), np.uint8),
        "label": i,
        "note": "not read",
      },
    )
    for i in range(SIZE)
  ]
  tfds.dataset_builders.store_as_tfds_dataset(
    name="cifar10",
    version="3.0.2",
    data_dir=folder,
    features=tfds.features.FeaturesDict(
      {
        "image": tfds.features.Image(shape=(None, None, 3)),
        "label": tfds.features.ClassLabel(num_classes=SIZE),
        "note": tfds.features.Text(),
      }
    ),
    split_datasets={"train": examples},
    download_config=tfds.download.DownloadConfig(num_shards=SHARDS),
  )
  return datasets.load("cifar10", str(folder))


def batches(source, count, **changes) -> list[dict[str, np.ndarray]]:
  options = {
    "batch_size": 10,
    "image_size": 16,
    "view1": augment.View(**VIEWS.view1),
    "view2": augment.View(**VIEWS.view2),
    "seed": 0,
    "shuffle_buffer": 20,
  }
  iterator = input_pipeline.train_batches(source, **(options | changes))
  return list(itertools.islice(iterator, count))


def labels(some_batches) -> np.ndarray:
  return np.concatenate([batch["label"] for batch in some_batches])


def assert_equal(actual, expected):
  assert len(actual) == len(expected)
  for a, b in zip(actual, expected, strict=True):
    for name in ("view1", "view2", "label"):
      np.testing.assert_array_equal(a[name], b[name])


def eval_batches(source, split="train", **changes):
  options = {"batch_size": 10, "image_size": 16, "crop": 0.875}
  return list(input_pipeline.eval_batches(source, split, **(options | changes)))


def test_fixture_has_several_files(source):
  assert source.builder.info.splits["train"].num_shards == SHARDS


def test_batch_is_what_the_learner_expects(source):
  (batch,) = batches(source, 1)
  for name in ("view1", "view2"):
    assert batch[name].shape == (10, 16, 16, 3)
    assert batch[name].dtype == np.float32
    assert batch[name].min() >= 0
    assert batch[name].max() <= 1
  assert batch["label"].shape == (10,)
  assert batch["label"].dtype == np.int32


def test_every_epoch_holds_every_example_once_in_a_new_order(source):
  stream = labels(batches(source, 30))
  epochs = [stream[i * SIZE : (i + 1) * SIZE] for i in range(3)]
  for epoch in epochs:
    np.testing.assert_array_equal(np.sort(epoch), np.arange(SIZE))
  assert len({tuple(epoch) for epoch in epochs}) == 3


def test_shuffling_mixes_files(source):
  stored = labels(eval_batches(source))
  file_of = dict(zip(stored, np.arange(SIZE) * SHARDS // SIZE, strict=True))
  (batch,) = batches(source, 1, shuffle_buffer=1)
  assert len({file_of[label] for label in batch["label"]}) > 2


def test_same_seed_gives_the_same_batches(source):
  assert_equal(batches(source, 3), batches(source, 3))


def test_seed_decides_order_and_views(source):
  first, other = batches(source, 1)[0], batches(source, 1, seed=1)[0]
  assert not np.array_equal(first["label"], other["label"])


def test_views_of_an_example_change_with_its_place_in_the_stream(source):
  first, second = batches(source, 2, batch_size=SIZE)
  (i,) = np.flatnonzero(first["label"] == 3)
  (j,) = np.flatnonzero(second["label"] == 3)
  assert not np.allclose(first["view1"][i], second["view1"][j])


def test_views_are_two_views_of_seed_and_position(source):
  images = {
    example["label"]: example["image"]
    for example in tfds.as_numpy(source.builder.as_dataset(split="train"))
  }
  (batch,) = batches(source, 1, seed=5, start_step=12)
  for i in range(10):
    view1, view2 = augment.two_views(
      images[batch["label"][i]],
      augment.View(**VIEWS.view1),
      augment.View(**VIEWS.view2),
      16,
      np.array([5, 120 + i], np.int64),
    )
    np.testing.assert_allclose(batch["view1"][i], view1, atol=1e-6)
    np.testing.assert_allclose(batch["view2"][i], view2, atol=1e-6)


@pytest.mark.parametrize("start_step", [1, 9, 10, 25])
def test_resumed_stream_is_the_uninterrupted_one(source, start_step):
  # Step 9 straddles two epochs; 25 lies in the third.
  whole = batches(source, start_step + 3)
  assert_equal(batches(source, 3, start_step=start_step), whole[start_step:])


def test_late_start_is_not_paid_for_epoch_by_epoch(source):
  # 10^11 steps: reading them one by one would take years.
  (batch,) = batches(source, 1, start_step=10**11)
  assert len(batch["label"]) == 10


def test_batch_may_be_the_whole_split(source):
  (batch,) = batches(source, 1, batch_size=SIZE)
  np.testing.assert_array_equal(np.sort(batch["label"]), np.arange(SIZE))


def test_processes_share_the_same_global_batches(source):
  process_count = 5
  whole = batches(source, 12, start_step=3)
  parts = [
    batches(
      source,
      12,
      start_step=3,
      process_index=i,
      process_count=process_count,
    )
    for i in range(process_count)
  ]
  together = [
    {name: np.concatenate([b[name] for b in step]) for name in step[0]}
    for step in zip(*parts, strict=True)
  ]
  assert_equal(together, whole)


def test_labels_that_tfds_hides_are_minus_one(tmp_path):
  store_unlabelled(tmp_path, tfds.features.ClassLabel(num_classes=2), -1)
  source = datasets.load("stl10", str(tmp_path))
  assert source.num_classes == 2
  stream = labels(batches(source, 1, batch_size=8))
  np.testing.assert_array_equal(np.sort(stream), [-1, -1, -1, -1, 1, 1, 1, 1])


def test_data_set_without_labels_gives_minus_one(tmp_path):
  store_unlabelled(tmp_path, None, None)
  source = datasets.load("stl10", str(tmp_path))
  assert source.num_classes == 0
  np.testing.assert_array_equal(labels(batches(source, 1, batch_size=8)), -1)
  evaluated = labels(eval_batches(source))
  np.testing.assert_array_equal(evaluated, [-1] * 4)


def store_unlabelled(folder, label_feature, unlabelled):
  """STL-10 in small: a pretraining split of which a half has labels."""
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


@pytest.mark.parametrize("batch_size", [1, 10, 96, 97, 98])
@pytest.mark.parametrize("process_count", [1, 3])
def test_evaluation_sees_every_example_once(source, batch_size, process_count):
  parts = [
    eval_batches(
      source,
      batch_size=batch_size,
      process_index=i,
      process_count=process_count,
    )
    for i in range(process_count)
  ]
  for part in parts:
    assert all(len(batch["label"]) == batch_size for batch in part[:-1])
  seen = np.concatenate([labels(part) for part in parts])
  np.testing.assert_array_equal(np.sort(seen), np.arange(SIZE))


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
    expected = augment.eval_image(example["image"], 16, 0.875)
    np.testing.assert_allclose(image, expected, atol=1e-6)


def test_part_of_a_split_is_evaluated_alone(source):
  stored = labels(eval_batches(source))
  part = labels(eval_batches(source, "train[30:71]"))
  np.testing.assert_array_equal(part, stored[30:71])


def test_digits_come_with_three_channels(digits_dir):
  digits = datasets.load("mnist_digits", digits_dir)
  (batch,) = batches(digits, 1, image_size=28)
  assert batch["view1"].shape == (10, 28, 28, 3)
  total = sum(len(b["label"]) for b in eval_batches(digits, "test"))
  assert total == 1000


@pytest.mark.parametrize(
  ("changes", "parts"),
  [
    ({"batch_size": 98}, ("98", "97", "lower")),
    ({"process_count": 4}, ("10", "4", "try 8 or 12")),
  ],
)
def test_batch_that_cannot_be_is_one_line(source, changes, parts):
  with pytest.raises(errors.UserError) as info:
    batches(source, 1, **changes)
  assert "\n" not in str(info.value)
  for part in parts:
    assert part in str(info.value)


def test_unknown_evaluation_split_is_refused_at_once(source):
  with pytest.raises(errors.UserError, match="one of: train"):
    input_pipeline.eval_batches(
      source, "test", batch_size=1, image_size=8, crop=1.0
    )
