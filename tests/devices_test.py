"""Batches on their way to the devices."""

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
  """One bit, or two values in each other's place, on the second of two."""
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
