"""Batches, states and functions on two devices."""

import jax
import numpy as np
import pytest

from byol_jax import errors
from byol_jax.runtime import devices


def test_batches_lie_on_the_devices_ahead_of_their_use():
  taken = []

  def batches():
    for i in range(6):
      taken.append(i)
      yield {"view1": np.full((4, 3), i)}

  for i, batch in enumerate(devices.prefetch(batches(), size=2)):
    assert batch["view1"].shape == (2, 2, 3)
    assert len(batch["view1"].sharding.device_set) == 2
    assert np.all(batch["view1"] == i)
    assert taken == [*range(min(i + 3, 6))]


@pytest.mark.parametrize(
  ("batch_size", "microbatches", "remedy"),
  [(7, 1, "try 6 or 8"), (20, 8, "train.microbatches=8; try 16 or 32")],
)
def test_a_batch_that_does_not_divide_is_named_with_ones_that_do(
  batch_size, microbatches, remedy
):
  devices.check_batch_size(16, 8)
  with pytest.raises(errors.UserError, match=remedy) as caught:
    devices.check_batch_size(batch_size, microbatches)
  assert str(caught.value).startswith(f"train.batch_size={batch_size} must")


def test_devices_that_hold_another_state_are_named():
  """The second device has one other bit, or two values swapped."""
  state = {"a": np.arange(6, dtype=np.float32), "step": np.int32(3)}
  assert devices.differing_devices(devices.replicate(state)) == []

  swapped = state["a"][[1, 0, 2, 3, 4, 5]]
  nudged = np.nextafter(state["a"], np.float32(9))
  for other in (swapped, nudged):
    copies = [
      jax.device_put(value, device)
      for value, device in zip(
        (state["a"], other), jax.local_devices(), strict=True
      )
    ]
    sharding = devices.replicate(state)["a"].sharding
    array = jax.make_array_from_single_device_arrays((6,), sharding, copies)
    found = devices.differing_devices(devices.replicate(state) | {"a": array})
    assert found == [1]


@pytest.mark.parametrize("count", [1, 3, 4])
def test_any_number_of_examples_is_split_and_comes_back_in_order(count):
  double = devices.pmap_examples(lambda factor, x: {"y": factor * x["x"]})
  x = np.arange(2 * count, dtype=np.float32).reshape(count, 2)
  found = double(np.float32(2), {"x": x})["y"]
  assert isinstance(found, np.ndarray)
  np.testing.assert_array_equal(found, 2 * x)


def test_means_over_devices_keep_the_tree_and_need_an_axis():
  tree = {"a": np.array([[1.0, 2.0], [3.0, 6.0]]), "b": np.array([4.0, 0.0])}
  assert devices.mean_over_devices(tree, None) is tree
  found = jax.vmap(
    lambda each: devices.mean_over_devices(each, "i"), axis_name="i"
  )(tree)
  np.testing.assert_array_equal(found["a"], [[2, 4], [2, 4]])
  np.testing.assert_array_equal(found["b"], [2, 2])
