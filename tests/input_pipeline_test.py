"""The global stream: same batches however they are cut up or resumed."""

import dataclasses
import io
import itertools
import pathlib
import shutil

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from byol_jax import config, errors
from byol_jax.augment import device_ops, spec
from byol_jax.data import crops, host_ops, input_pipeline, loading, sampling

SIZE = 97  # Prime, so no batch size fits.
SHARDS = 5
_CONFIG = config.default_config().augment
CROP_ONLY = dataclasses.replace(
  spec.View(**_CONFIG.view1),
  flip_prob=0.0,
  jitter_prob=0.0,
  grayscale_prob=0.0,
  blur_prob=0.0,
)
FLIPPED = dataclasses.replace(
  CROP_ONLY, flip_prob=0.5
)  # And little to compile.
VIEWS = spec.Views(FLIPPED, FLIPPED, image_size=16)
PAPER = {
  "view1": spec.View(**_CONFIG.view1),
  "view2": spec.View(**_CONFIG.view2),
}
READING = input_pipeline.Reading(shuffle_buffer=20)


@pytest.fixture(scope="module")
def stored(tmp_path_factory) -> pathlib.Path:
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
  return folder


@pytest.fixture(scope="module")
def source(stored) -> loading.Source:
  return loading.load("cifar10", str(stored))


@pytest.fixture
def copied(stored, tmp_path) -> tuple[loading.Source, list[pathlib.Path]]:
  """A copy of the data set that may be broken, and its files."""
  shutil.copytree(stored, tmp_path / "copied")
  source = loading.load("cifar10", str(tmp_path / "copied"))
  return source, sorted(tmp_path.glob("copied/cifar10/*/*.tfrecord*"))


def changed(settings, changes):
  """Named settings with the changes among them, which are taken out."""
  mine = [name for name in settings._fields if name in changes]
  return settings._replace(**{name: changes.pop(name) for name in mine})


def batches(source, count, **changes) -> list[dict[str, np.ndarray]]:
  views, reading = changed(VIEWS, changes), changed(READING, changes)
  options = {"batch_size": 10, "seed": 0}
  iterator = input_pipeline.train_batches(
    source, views, reading, **(options | changes)
  )
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
  (batch,) = batches(source, 1, **PAPER)
  for name in ("view1", "view2"):
    assert batch[name].shape == (10, 16, 16, 3)
    assert batch[name].dtype == np.float32
    assert batch[name].min() >= 0
    assert batch[name].max() <= 1
  assert batch["label"].shape == (10,)
  assert batch["label"].dtype == np.int32


@pytest.mark.parametrize("cache_bytes", [0, 2**30])
def test_every_epoch_holds_every_example_once_in_a_new_order(
  source, cache_bytes
):
  stream = labels(batches(source, 30, cache_bytes=cache_bytes))
  epochs = [stream[i * SIZE : (i + 1) * SIZE] for i in range(3)]
  for epoch in epochs:
    np.testing.assert_array_equal(np.sort(epoch), np.arange(SIZE))
  assert len({tuple(epoch) for epoch in epochs}) == 3


def files_of_labels(source) -> list[list[int]]:
  """The labels in each file, in the order in which they are stored."""
  stored = iter(labels(eval_batches(source)).tolist())
  lengths = source.builder.info.splits["train"].shard_lengths
  return [list(itertools.islice(stored, length)) for length in lengths]


def test_shuffling_mixes_files(source):
  file_of = {
    label: i for i, file in enumerate(files_of_labels(source)) for label in file
  }
  (batch,) = batches(source, 1, shuffle_buffer=1)
  assert len({file_of[label] for label in batch["label"]}) > 2


@pytest.mark.parametrize("limit", [{"shuffle_bytes": 1}, {"shuffle_buffer": 1}])
def test_without_a_buffer_files_take_turns_in_their_own_order(source, limit):
  files = files_of_labels(source)
  epoch = labels(batches(source, 1, batch_size=SIZE, **limit)).tolist()
  heads = [file[0] for file in files]
  assert sorted(epoch[:SHARDS]) == sorted(heads)
  assert epoch[:SHARDS] != heads  # The files are shuffled all the same.
  for file in files:
    assert [label for label in epoch if label in file] == file


def test_buffer_holds_no_more_bytes_than_it_may(source):
  info = source.builder.info
  record = info.dataset_size // info.splits.total_num_examples
  by_count = labels(batches(source, 10, shuffle_buffer=7))
  by_bytes = labels(batches(source, 10, shuffle_bytes=7 * record))
  np.testing.assert_array_equal(by_bytes, by_count)
  by_fewer = labels(batches(source, 10, shuffle_bytes=7 * record - 1))
  assert not np.array_equal(by_fewer, by_count)


def test_cache_shuffles_across_the_whole_split(source):
  # Of a buffer of one, what is stored last could not come first.
  place = {label: i for i, label in enumerate(labels(eval_batches(source)))}
  stream = labels(batches(source, 1, batch_size=SIZE, cache_bytes=2**30))
  places = np.array([place[label] for label in stream])
  assert abs(np.corrcoef(places, np.arange(SIZE))[0, 1]) < 0.3
  assert not np.array_equal(stream, labels(batches(source, 1, batch_size=SIZE)))


@pytest.mark.parametrize("options", [{"threads": 1}, {"prefetch": 3}])
def test_speed_changes_no_batch(source, options):
  assert_equal(batches(source, 3, **options), batches(source, 3))


def test_same_seed_gives_the_same_batches(source):
  assert_equal(batches(source, 3, **PAPER), batches(source, 3, **PAPER))


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
  here = {"seed": 5, "start_step": 12, **PAPER}
  (batch,) = batches(source, 1, **here)
  (on_device,) = batches(source, 1, **here, placement="device")
  np.testing.assert_array_equal(on_device["label"], batch["label"])
  operations = spec.enabled_ops(*PAPER.values())

  @tf.function(jit_compile=True)
  def apply(crops, recipes):
    return host_ops.apply(crops, recipes, operations)

  for i in range(10):
    crops_and_draws = crops.two_random_crops(
      images[batch["label"][i]],
      spec.Views(*PAPER.values(), 16),
      np.array([5, 120 + i], np.int64),
    )
    for j in (0, 1):
      crop, u = crops_and_draws[j], crops_and_draws[2 + j]
      recipe = sampling.sample_params(u[None], [*PAPER.values()][j], operations)
      (view,) = apply(crop[None], recipe)
      np.testing.assert_allclose(batch[f"view{j + 1}"][i], view, atol=1e-6)
      for field, expected in zip(
        on_device[f"params{j + 1}"], recipe, strict=True
      ):
        np.testing.assert_allclose(field[i], expected[0], rtol=1e-6)


def test_device_gets_the_bytes_of_the_crops_that_the_host_finishes(source):
  plain = {"view1": CROP_ONLY, "view2": CROP_ONLY}
  (host,) = batches(source, 1, **plain)
  (device,) = batches(source, 1, **plain, placement="device")
  for name in ("view1", "view2"):
    assert device[name].shape == (10, 16, 16, 3)
    assert device[name].dtype == np.uint8
    difference = np.abs(device[name] / 255 - host[name])
    assert difference.max() <= 0.5 / 255 + 1e-6


def test_views_finished_on_the_device_are_the_hosts_but_for_rounding(source):
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
  changes = {"view1": view, "view2": view, "image_size": 24}
  (host,) = batches(source, 1, **changes)
  (device,) = batches(source, 1, **changes, placement="device")
  operations = spec.enabled_ops(view)
  for i in (1, 2):
    finished = device_ops.apply(
      device[f"view{i}"], device[f"params{i}"], operations
    )
    difference = np.abs(finished - host[f"view{i}"])
    assert difference.max() <= 0.5 / 255 + 1e-5


@pytest.mark.parametrize("placement", ["host", "device"])
def test_grey_views_have_one_channel(source, placement):
  plain = {"view1": CROP_ONLY, "view2": CROP_ONLY, "placement": placement}
  (grey,) = batches(source, 1, channels=1, **plain)
  (colour,) = batches(source, 1, **plain)
  scale = 255 if placement == "device" else 1
  for name in ("view1", "view2"):
    assert grey[name].shape == (10, 16, 16, 1)
    luminance = colour[name] / scale @ np.array([0.299, 0.587, 0.114])
    # Images are made grey before they are resized, and clipped after it.
    difference = np.abs(grey[name][..., 0] / scale - luminance)
    assert np.median(difference) < 1 / 255
    assert difference.max() < 0.1


def test_grey_evaluation_images_have_one_channel(source):
  (grey,) = eval_batches(source, "train[:7]", channels=1)
  (colour,) = eval_batches(source, "train[:7]")
  assert grey["image"].shape == (7, 16, 16, 1)
  luminance = colour["image"] @ np.array([0.299, 0.587, 0.114])
  assert np.median(np.abs(grey["image"][..., 0] - luminance)) < 1 / 255


@pytest.mark.parametrize("start_step", [1, 9, 10, 25])
@pytest.mark.parametrize(
  "reading",
  [
    {},
    {"cache_bytes": 2**30},
    {"parts": 5},
    {"parts": 5, "cache_bytes": 2**30},
  ],
  ids=str,
)
def test_resumed_stream_is_the_uninterrupted_one(source, start_step, reading):
  # Step 9 straddles two epochs; 25 lies in the third.
  whole = batches(source, start_step + 3, **reading)
  resumed = batches(source, 3, start_step=start_step, **reading)
  assert_equal(resumed, whole[start_step:])


@pytest.mark.parametrize("cache_bytes", [0, 2**30])
def test_late_start_is_not_paid_for_epoch_by_epoch(source, cache_bytes):
  # 10^11 steps: reading them one by one would take years.
  (batch,) = batches(source, 1, start_step=10**11, cache_bytes=cache_bytes)
  assert len(batch["label"]) == 10


@pytest.mark.parametrize(("count", "image_size"), [(7, 16), (5, 224), (1, 16)])
def test_first_views_are_those_of_the_first_step(source, count, image_size):
  views = VIEWS._replace(image_size=image_size)
  originals, batch = input_pipeline.first_views(
    source, views, READING, count=count, seed=3
  )
  (first,) = batches(source, 1, seed=3, image_size=image_size)
  assert len(originals) == count
  for name in ("view1", "view2"):
    np.testing.assert_allclose(batch[name], first[name][:count], atol=1e-6)
  images = {
    example["label"]: example["image"]
    for example in tfds.as_numpy(source.builder.as_dataset(split="train"))
  }
  for original, label in zip(originals, first["label"], strict=False):
    np.testing.assert_array_equal(original, images[label])


def test_first_views_of_a_device_are_crops_and_recipes(source):
  views = VIEWS._replace(placement="device", channels=1)
  originals, batch = input_pipeline.first_views(
    source, views, READING, count=3, seed=3
  )
  assert originals[0].shape == (24, 20, 1)
  assert batch["view1"].shape == (3, 16, 16, 1)
  assert batch["params1"].sigma.shape == (3,)


def test_batch_may_be_the_whole_split(source):
  (batch,) = batches(source, 1, batch_size=SIZE)
  np.testing.assert_array_equal(np.sort(batch["label"]), np.arange(SIZE))


def batches_of_processes(source, count, process_count, **changes):
  return [
    batches(
      source,
      count,
      process_index=i,
      process_count=process_count,
      **changes,
    )
    for i in range(process_count)
  ]


@pytest.mark.slow
@pytest.mark.parametrize(
  ("process_count", "options"),
  [
    (5, {"parts": 5}),
    (5, {"parts": 5, "cache_bytes": 2**30}),
    (2, {"parts": 10}),
    (2, {"parts": 2, **PAPER}),
    (2, {"parts": 1}),
    (2, {"parts": 5, "cache_bytes": 2**30}),
  ],
  ids=[
    "one part each",
    "cached",
    "many parts each",
    "paper",
    "one part for all",
    "parts that do not divide",
  ],
)
def test_processes_share_the_same_global_batches(
  source, process_count, options
):
  options = {"start_step": 3, **options}
  whole = batches(source, 12, **options)
  of_processes = batches_of_processes(source, 12, process_count, **options)
  together = [
    {name: np.concatenate([b[name] for b in step]) for name in step[0]}
    for step in zip(*of_processes, strict=True)
  ]
  assert_equal(together, whole)


def test_process_reads_a_part_of_the_split_of_its_own(source):
  # Of 97 examples, a part has 19 or 20: two more steps begin it anew.
  of_processes = batches_of_processes(source, 12, 5, parts=5)
  seen = [set(labels(some).tolist()) for some in of_processes]
  assert sorted(len(part) for part in seen) == [19, 19, 19, 20, 20]
  assert set.union(*seen) == set(range(SIZE))
  for i, part in enumerate(seen):
    epoch = labels(of_processes[i])[: len(part)]
    assert set(epoch.tolist()) == part


def test_process_opens_only_files_of_its_own(copied):
  source, files = copied
  part = tfds.even_splits("train", 5, drop_remainder=False)[0]
  info = source.builder.info.splits[part]
  own = {name.filename for name in info.file_instructions}
  for file in files:
    if str(file) not in own:
      file.unlink()
  assert len(own) < SHARDS
  assert len(batches(source, 30, parts=5, process_count=5)) == 30


def test_labels_that_tfds_hides_are_minus_one(tmp_path):
  store_unlabelled(tmp_path, tfds.features.ClassLabel(num_classes=2), -1)
  source = loading.load("stl10", str(tmp_path))
  assert source.num_classes == 2
  stream = labels(batches(source, 1, batch_size=8))
  np.testing.assert_array_equal(np.sort(stream), [-1, -1, -1, -1, 1, 1, 1, 1])


def test_data_set_without_labels_gives_minus_one(tmp_path):
  store_unlabelled(tmp_path, None, None)
  source = loading.load("stl10", str(tmp_path))
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
def test_evaluation_sees_every_example_once(source, batch_size):
  found = eval_batches(source, batch_size=batch_size)
  assert all(len(batch["label"]) == batch_size for batch in found[:-1])
  np.testing.assert_array_equal(np.sort(labels(found)), np.arange(SIZE))


@pytest.mark.parametrize("batch_size", [1, 10, 32, 98])
def test_processes_take_batches_of_an_evaluation_in_turn(source, batch_size):
  of_each = [
    eval_batches(
      source, batch_size=batch_size, process_index=i, process_count=3
    )
    for i in range(3)
  ]
  turns = zip(*of_each, strict=True)  # As many each: none waits for another.
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
    expected = crops.centre_crop(example["image"], 16, 0.875)
    np.testing.assert_allclose(image, expected, atol=1e-6)


def test_part_of_a_split_is_evaluated_alone(source):
  stored = labels(eval_batches(source))
  part = labels(eval_batches(source, "train[30:71]"))
  np.testing.assert_array_equal(part, stored[30:71])


def test_digits_come_with_three_channels(digits_dir):
  digits = loading.load("mnist_digits", digits_dir)
  (batch,) = batches(digits, 1, image_size=28)
  assert batch["view1"].shape == (10, 28, 28, 3)
  total = sum(len(b["label"]) for b in eval_batches(digits, "test"))
  assert total == 1000


@pytest.mark.parametrize(
  ("changes", "parts"),
  [
    ({"batch_size": 98}, ("98", "97", "lower")),
    ({"parts": 4}, ("10", "data.parts=4", "try 8 or 12")),
    ({"parts": 4, "process_count": 4}, ("data.parts=4", "try 8 or 12")),
    ({"process_count": 3}, ("10", "the 3 processes", "try 9 or 12")),
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


def read_for_training(source):
  batches(source, 10)


def read_into_memory(source):
  batches(source, 10, cache_bytes=2**30)


def read_for_evaluation(source):
  eval_batches(source)


def read_to_be_shown(source):
  input_pipeline.first_views(source, VIEWS, READING, count=SIZE, seed=0)


READERS = (
  read_for_training,
  read_into_memory,
  read_for_evaluation,
  read_to_be_shown,
  input_pipeline.measure,
)


def reading_error(reader, source) -> str:
  with pytest.raises(errors.UserError) as info:
    reader(source)
  message = str(info.value)
  assert "\n" not in message
  return message


@pytest.mark.parametrize("reader", READERS)
def test_truncated_file_is_named(copied, reader):
  source, files = copied
  content = files[2].read_bytes()
  files[2].write_bytes(content[:-100])
  message = reading_error(reader, source)
  assert f"{files[2]} is truncated" in message
  assert not any(str(file) in message for file in files if file != files[2])


def test_file_cut_off_anywhere_is_named(copied):
  source, files = copied
  content = files[2].read_bytes()
  lengths = [
    len(r) + 16
    for r in tf.data.TFRecordDataset(str(files[2])).as_numpy_iterator()
  ]
  assert sum(lengths) == len(content)
  between = sum(lengths[:-1])  # The last record is gone as if never written.
  for length in (len(content) - 1, between, between + 5, lengths[0], 3):
    files[2].write_bytes(content[:length])
    message = reading_error(read_for_evaluation, source)
    assert f"{files[2]} is truncated" in message


@pytest.mark.parametrize("reader", READERS)
def test_empty_file_is_named(copied, reader):
  source, files = copied
  files[2].write_bytes(b"")
  assert f"{files[2]} is truncated" in reading_error(reader, source)


@pytest.mark.parametrize("reader", READERS)
def test_flipped_bit_is_found_and_its_file_named(copied, reader):
  source, files = copied
  content = bytearray(files[4].read_bytes())
  content[len(content) // 2] ^= 1
  files[4].write_bytes(content)
  assert f"{files[4]} is truncated or corrupt" in reading_error(reader, source)


@pytest.mark.parametrize("reader", READERS)
def test_file_that_went_away_is_named(copied, reader):
  source, files = copied
  files[1].unlink()
  assert f"{files[1]} is missing" in reading_error(reader, source)


def png() -> bytes:
  file = io.BytesIO()
  PIL.Image.new("RGB", (9, 9)).save(file, "PNG")
  return file.getvalue()


def example_record(**features) -> bytes:
  """A serialized example as tfds stores it, of bytes and of integers."""
  return tf.train.Example(
    features=tf.train.Features(
      feature={
        name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
        if isinstance(value, bytes)
        else tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
        for name, value in features.items()
      }
    )
  ).SerializeToString()


RECORDS = {
  "fitting": example_record(image=png(), label=1),
  "no image": example_record(image=b"garbage", label=1),
  "half an image": example_record(image=png()[:40], label=1),
  "image missing": example_record(label=1),
  "label missing": example_record(image=png()),
  "label of bytes": example_record(image=png(), label=b"1"),
  "no example": b"garbage",
}


def write_records(file, record):
  count = sum(1 for _ in tf.data.TFRecordDataset(str(file)))
  with tf.io.TFRecordWriter(str(file)) as writer:
    for _ in range(count):
      writer.write(record)


def test_record_that_fits_is_read(copied):
  source, files = copied
  write_records(files[3], RECORDS["fitting"])
  for reader in READERS:
    reader(source)


@pytest.mark.parametrize(
  ("kind", "reader"),
  [(kind, read_for_evaluation) for kind in [*RECORDS][1:]]
  + [
    ("no image", reader) for reader in READERS if reader != read_for_evaluation
  ],
)
def test_record_that_does_not_fit_is_told_with_its_file(copied, kind, reader):
  source, files = copied
  write_records(files[3], RECORDS[kind])
  message = reading_error(reader, source)
  assert f"{files[3]} holds a record that is not what" in message
  assert len(message) < 600


def test_statistics_are_those_that_numpy_computes(source):
  images = [
    example["image"] / 255
    for example in tfds.as_numpy(source.builder.as_dataset(split="train"))
  ]
  measured = input_pipeline.measure(source)
  pixels = np.concatenate([image.reshape(-1, 3) for image in images])
  np.testing.assert_allclose(measured.mean, pixels.mean(0), atol=1e-4)
  np.testing.assert_allclose(measured.std, pixels.std(0), atol=1e-4)
  assert measured.side == 20


def test_measured_statistics_are_near_those_known_of_the_digits(digits_dir):
  digits = loading.load("mnist_digits", digits_dir)
  measured = input_pipeline.measure(digits)
  known = digits.dataset.statistics
  np.testing.assert_allclose(measured.mean, known.mean, atol=0.01)
  np.testing.assert_allclose(measured.std, known.std, atol=0.01)
  assert measured.side == known.side


def labelled(source, count, places, split="train", **changes):
  view = changes.pop("view", CROP_ONLY)
  reading = changed(READING, changes)
  options = {"batch_size": 10, "image_size": 16, "seed": 0}
  iterator = input_pipeline.labelled_batches(
    source, split, places, view, reading, **(options | changes)
  )
  return list(itertools.islice(iterator, count))


@pytest.mark.parametrize("cache_bytes", [0, 2**30])
@pytest.mark.parametrize(
  "places", [range(97), range(30, 71), np.array([3, 5, 8, 60, 96])], ids=str
)
def test_labelled_batches_hold_the_places_once_an_epoch(
  source, places, cache_bytes
):
  stored = labels(eval_batches(source))
  size = len(places)
  found = labels(labelled(source, 30, places, cache_bytes=cache_bytes))
  for epoch in (found[:size], found[size : 2 * size]):
    np.testing.assert_array_equal(np.sort(epoch), np.sort(stored[places]))
  assert np.any(found[:size] != found[size : 2 * size])


def test_processes_share_labelled_batches(source):
  whole = labelled(source, 8, range(SIZE), batch_size=7)
  of_each = [
    labelled(
      source, 8, range(SIZE), batch_size=7, process_index=i, process_count=3
    )
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
  places = np.array([40])
  (plain,) = labelled(source, 1, places, view=whole)
  np.testing.assert_array_equal(plain["image"][0], plain["image"][9])
  assert plain["image"].min() >= 0
  assert plain["image"].max() <= 1
  flipped = labelled(
    source, 1, places, view=dataclasses.replace(whole, flip_prob=1.0)
  )
  np.testing.assert_array_equal(flipped[0]["image"], plain["image"][:, :, ::-1])


def test_evaluation_of_some_places_is_that_part_of_all(source):
  stored = labels(eval_batches(source))
  part = labels(eval_batches(source, places=range(30, 71)))
  np.testing.assert_array_equal(part, stored[30:71])


@pytest.mark.parametrize(
  ("split", "other", "shared"),
  [
    ("train[:30]", "train[30:]", 0),
    ("train[:50]", "train[40:]", 10),
    ("train", "train[96:]", 1),
    ("train[:10]+train[90:]", "train[5:95]", 10),
  ],
)
def test_examples_in_two_splits_are_counted(source, split, other, shared):
  assert input_pipeline.num_shared(source, split, other) == shared
  assert input_pipeline.num_shared(source, other, split) == shared


def test_ids_tell_examples_apart_and_follow_them(source):
  ids = input_pipeline.example_ids(source, "train")
  assert len(set(ids)) == SIZE
  assert input_pipeline.example_ids(source, "train[30:71]") == ids[30:71]
