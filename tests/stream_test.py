"""Shuffling, resuming and dividing the stream of examples."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from hypothesis import given, settings
from hypothesis import strategies as st

from byol_jax.data import loading, stream
from byol_jax.data.source import ProcessSlice
from tests.input_cases import (
  PAPER,
  SHARDS,
  SIZE,
  assert_equal,
  eval_batches,
  labels,
  train_batches,
)


def test_fixture_has_several_files(source):
  assert source.builder.info.splits["train"].num_shards == SHARDS


@pytest.mark.parametrize("cache_bytes", [0, 2**30])
def test_every_epoch_holds_every_example_once_in_a_new_order(
  source, cache_bytes
):
  stream = labels(train_batches(source, 30, cache_bytes=cache_bytes))
  epochs = [stream[i * SIZE : (i + 1) * SIZE] for i in range(3)]
  for epoch in epochs:
    np.testing.assert_array_equal(np.sort(epoch), np.arange(SIZE))
  assert len({tuple(epoch) for epoch in epochs}) == 3


@pytest.mark.parametrize(
  ("cache_bytes", "split", "fraction", "indices"),
  [
    (0, "train[:24]", 1.0, range(24)),
    (2**30, "train[17:]+train[:17]", 0.25, (*range(17, 37), 0, 1, 2, 3)),
  ],
)
def test_a_selected_part_is_trained_on_and_nothing_else(
  source, cache_bytes, split, fraction, indices
):
  """Whole epochs, in two parts and for two processes, from any step on."""
  expected = sorted(labels(eval_batches(source))[list(indices)])
  part = loading.select(source, split, fraction)
  options = {"cache_bytes": cache_bytes, "batch_size": 4, "parts": 2}
  whole = train_batches(part, 13, **options)
  epochs = labels(whole)
  assert sorted(epochs[:24]) == sorted(epochs[24:48]) == expected
  assert_equal(train_batches(part, 3, **options, start_step=10), whole[10:])
  halves = [
    train_batches(part, 13, **options, process=ProcessSlice(i, 2))
    for i in range(2)
  ]
  for batch, first, second in zip(whole, *halves, strict=True):
    both = np.concatenate([first["label"], second["label"]])
    np.testing.assert_array_equal(both, batch["label"])


def files_of_labels(source) -> list[list[int]]:
  """The labels in each file, in the order in which they are stored."""
  stored = iter(labels(eval_batches(source)).tolist())
  lengths = source.builder.info.splits["train"].shard_lengths
  return [list(itertools.islice(stored, length)) for length in lengths]


def test_shuffling_mixes_files(source):
  file_of = {
    label: i for i, file in enumerate(files_of_labels(source)) for label in file
  }
  (batch,) = train_batches(source, 1, shuffle_buffer=1)
  assert len({file_of[label] for label in batch["label"]}) > 2


@pytest.mark.parametrize("limit", [{"shuffle_bytes": 1}, {"shuffle_buffer": 1}])
def test_without_a_buffer_files_take_turns_in_their_own_order(source, limit):
  files = files_of_labels(source)
  epoch = labels(train_batches(source, 1, batch_size=SIZE, **limit)).tolist()
  heads = [file[0] for file in files]
  assert sorted(epoch[:SHARDS]) == sorted(heads)
  assert epoch[:SHARDS] != heads  # But the files are shuffled.
  for file in files:
    assert [label for label in epoch if label in file] == file


def test_buffer_holds_no_more_bytes_than_it_may(source):
  info = source.builder.info
  record = info.dataset_size // info.splits.total_num_examples
  by_count = labels(train_batches(source, 10, shuffle_buffer=7))
  by_bytes = labels(train_batches(source, 10, shuffle_bytes=7 * record))
  np.testing.assert_array_equal(by_bytes, by_count)
  by_fewer = labels(train_batches(source, 10, shuffle_bytes=7 * record - 1))
  assert not np.array_equal(by_fewer, by_count)


def test_cache_shuffles_across_the_whole_split(source):
  # With a buffer of one, the last example could not come first.
  index_of = {label: i for i, label in enumerate(labels(eval_batches(source)))}
  stream = labels(train_batches(source, 1, batch_size=SIZE, cache_bytes=2**30))
  indices = np.array([index_of[label] for label in stream])
  assert abs(np.corrcoef(indices, np.arange(SIZE))[0, 1]) < 0.3
  assert not np.array_equal(
    stream, labels(train_batches(source, 1, batch_size=SIZE))
  )


@pytest.mark.parametrize("options", [{"threads": 1}, {"prefetch": 3}])
def test_speed_changes_no_batch(source, options):
  assert_equal(train_batches(source, 3, **options), train_batches(source, 3))


def test_same_seed_gives_the_same_batches(source):
  assert_equal(
    train_batches(source, 3, **PAPER), train_batches(source, 3, **PAPER)
  )


def test_seed_decides_the_order(source):
  (first,) = train_batches(source, 1)
  (other,) = train_batches(source, 1, seed=1)
  assert not np.array_equal(first["label"], other["label"])


@pytest.mark.parametrize("start_step", [1, 9, 10, 25])
@pytest.mark.parametrize(
  "options",
  [
    {},
    {"cache_bytes": 2**30},
    {"parts": 5},
    {"parts": 5, "cache_bytes": 2**30},
  ],
  ids=str,
)
def test_resumed_stream_is_the_uninterrupted_one(source, start_step, options):
  # Step 9 straddles two epochs; 25 lies in the third.
  whole = train_batches(source, start_step + 3, **options)
  resumed = train_batches(source, 3, start_step=start_step, **options)
  assert_equal(resumed, whole[start_step:])


@pytest.mark.parametrize("cache_bytes", [0, 2**30])
def test_a_late_start_does_not_read_earlier_epochs(source, cache_bytes):
  # 10^11 steps: reading them one by one would take years.
  (batch,) = train_batches(
    source, 1, start_step=10**11, cache_bytes=cache_bytes
  )
  assert len(batch["label"]) == 10


def batches_of_processes(source, count, process_count, **changes):
  return [
    train_batches(
      source,
      count,
      process=ProcessSlice(i, process_count),
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
  whole = train_batches(source, 12, **options)
  of_processes = batches_of_processes(source, 12, process_count, **options)
  together = [
    {name: np.concatenate([b[name] for b in step]) for name in step[0]}
    for step in zip(*of_processes, strict=True)
  ]
  assert_equal(together, whole)


def test_each_process_reads_its_own_part_of_the_split(source):
  # A part of 97 examples has 19 or 20, so its last steps repeat it.
  of_processes = batches_of_processes(source, 12, 5, parts=5)
  seen = [set(labels(some).tolist()) for some in of_processes]
  assert sorted(len(part) for part in seen) == [19, 19, 19, 20, 20]
  assert set.union(*seen) == set(range(SIZE))
  for i, part in enumerate(seen):
    epoch = labels(of_processes[i])[: len(part)]
    assert set(epoch.tolist()) == part


def test_each_process_opens_only_its_own_files(copied):
  source, files = copied
  part = tfds.even_splits("train", 5, drop_remainder=False)[0]
  info = source.builder.info.splits[part]
  own = {instruction.filename for instruction in info.file_instructions}
  for file in files:
    if str(file) not in own:
      file.unlink()
  assert len(own) < SHARDS
  batches = train_batches(source, 30, parts=5, process=ProcessSlice(0, 5))
  assert len(batches) == 30


@given(st.integers(1, 200), st.integers(1, 20))
def test_slices_of_all_processes_make_up_a_batch(batch_size, count):
  slices = [ProcessSlice(i, count).indices(batch_size) for i in range(count)]
  assert list(itertools.chain(*slices)) == list(range(batch_size))
  sizes = [len(indices) for indices in slices]
  assert max(sizes) - min(sizes) <= 1


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 12), st.integers(1, 5), st.integers(0, 40))
def test_processes_take_the_elements_of_their_slices(batch_size, count, size):
  elements = tf.data.Dataset.range(100, 100 + size)
  for i in range(count):
    process = ProcessSlice(i, count)
    taken = stream.take_slices(elements, batch_size, process)
    found = [tuple(map(int, pair)) for pair in taken.as_numpy_iterator()]
    indices = process.indices(batch_size)
    expected = [p for p in range(size) if p % batch_size in indices]
    assert found == [(position, 100 + position) for position in expected]


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 30), st.integers(1, 12))
def test_padding_repeats_the_first_element_up_to_a_multiple(size, multiple):
  elements = tf.data.Dataset.range(5, 5 + size)
  padded = stream.pad_to_multiple(elements, size, multiple)
  found = list(padded.as_numpy_iterator())
  assert found[:size] == list(range(5, 5 + size))
  assert set(found[size:]) <= {5}
  assert len(found) % multiple == 0
  assert len(found) - size < multiple


def test_interleaved_streams_take_turns():
  streams = [tf.data.Dataset.range(10 * i, 10 * i + 6) for i in range(3)]
  found = stream.interleave(streams, 2).take(12).as_numpy_iterator()
  assert list(found) == [0, 1, 10, 11, 20, 21, 2, 3, 12, 13, 22, 23]
