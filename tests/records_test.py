"""Slices of files: trimming them and reading them."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from byol_jax.data import loading, records
from byol_jax.data.records import FileSlice
from tests import eval_cases
from tests.input_cases import SIZE

# Small, so that empty slices and coinciding borders are common.
counts = st.integers(0, 4)


@st.composite
def slices_of_files(draw) -> list[FileSlice]:
  """Slices of different files, some of them empty."""
  sizes = draw(st.lists(st.tuples(counts, counts), max_size=6))
  return [FileSlice(f"file {i}", *size) for i, size in enumerate(sizes)]


def listed(files) -> list[tuple[str, int]]:
  """The file of each record and its index in the file."""
  return [
    (file.name, file.skip + i) for file in files for i in range(file.take)
  ]


@given(slices_of_files(), st.integers(0, 20), st.integers(0, 20))
def test_trimmed_files_hold_exactly_the_records_at_the_indices(
  files, start, stop
):
  trimmed = records.trim(files, range(start, stop))
  assert listed(trimmed) == listed(files)[start:stop]
  assert records.num_records(trimmed) == len(listed(files)[start:stop])
  assert all(file.take > 0 for file in trimmed)


@given(slices_of_files(), st.integers(0, 20))
def test_files_trimmed_before_and_after_an_index_are_all_files(files, index):
  before = records.trim(files, range(index))
  after = records.trim(files, range(index, records.num_records(files)))
  assert listed(before) + listed(after) == listed(files)


def test_parts_of_a_split_follow_one_another(source):
  parts = [records.split_files(source, "train", i, 4) for i in range(4)]
  together = [record for part in parts for record in listed(part)]
  assert together == listed(records.split_files(source, "train"))
  sizes = [records.num_records(part) for part in parts]
  assert sum(sizes) == SIZE
  assert max(sizes) - min(sizes) == 1


def test_records_are_read_from_the_slices_alone(source):
  files = records.split_files(source, "train")
  parse = records.parser(source)

  def labels(files):
    return [int(parse(r)[1]) for r in records.read_in_order(files)]

  trimmed = records.trim(files, range(15, 60))
  assert len(trimmed) > 2
  assert labels(trimmed) == labels(files)[15:60]
  assert labels([]) == []


def test_record_size_is_the_mean_over_all_splits(source):
  info = source.builder.info
  assert records.record_size(source) == info.dataset_size // SIZE
  assert records.record_size(source) > 24 * 20  # Of incompressible noise.
  assert loading.num_examples(source, "train") == SIZE


def test_classes_of_a_multi_label_image_are_given_on_request(tmp_path):
  eval_cases.store_multi_label(tmp_path)
  source = loading.load("voc2007", str(tmp_path))
  examples = records.read_in_order(records.split_files(source, "train"))
  parse = records.parser(source, multi_label=True)
  for record in examples.take(20):
    image, label = parse(record)
    # `store_multi_label` adds 120 to the channels of an image's classes.
    expected = np.max(image, axis=(0, 1)) >= 120
    np.testing.assert_array_equal(label, expected)
    assert int(records.parser(source)(record)[1]) == -1
