"""Ids and overlap of the examples of splits."""

import pytest

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


def test_ids_are_unique_and_belong_to_examples(source):
  ids = split_contents.example_ids(source, "train")
  assert len(set(ids)) == SIZE
  assert split_contents.example_ids(source, "train[30:71]") == ids[30:71]
