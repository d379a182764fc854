"""Which examples splits hold: ids, overlap and keys for caches."""

import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byol_jax.data import split_contents
from tests.input_cases import SIZE


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
  assert split_contents.num_shared(source, split, other) == shared
  assert split_contents.num_shared(source, other, split) == shared


@st.composite
def ranges(draw) -> list[range]:
  """Up to three disjoint ranges of examples, in order."""
  ends = draw(st.sets(st.integers(0, SIZE), min_size=2, max_size=6))
  ends = sorted(ends)[: len(ends) // 2 * 2]
  return [range(*ends[i : i + 2]) for i in range(0, len(ends), 2)]


@settings(deadline=None)
@given(ranges(), ranges())
def test_the_overlap_of_any_splits_is_counted(source, first, second):
  def split(of):
    return "+".join(f"train[{r.start}:{r.stop}]" for r in of)

  indices, others = ({i for r in of for i in r} for of in (first, second))
  shared = split_contents.num_shared(source, split(first), split(second))
  assert shared == len(indices & others)


def test_ids_are_unique_and_belong_to_examples(source):
  ids = split_contents.example_ids(source, "train")
  assert len(set(ids)) == SIZE
  assert split_contents.example_ids(source, "train[30:71]") == ids[30:71]


def test_cache_key_changes_with_the_split_and_its_files(copied):
  source, files = copied

  def key(split):
    return json.dumps(split_contents.cache_key(source, split))

  first, part = key("train"), key("train[:50]")
  assert key("train") == first
  assert part != first
  untouched = key("train[:5]")
  os.utime(files[-1], ns=(0, 0))
  assert key("train") != first
  assert key("train[:5]") == untouched  # Its examples are in the first file.
