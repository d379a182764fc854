"""Batches on their way to the devices."""

import numpy as np
import pytest

from byol_jax import errors, parallel


def test_batches_lie_on_the_devices_ahead_of_their_use():
  taken = []

  def batches():
    for i in range(6):
      taken.append(i)
      yield {"view1": np.full((4, 3), i)}

  for i, batch in enumerate(parallel.prefetch(batches(), size=2)):
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
  parallel.check_batch_size(16, 8)
  with pytest.raises(errors.UserError, match=remedy) as caught:
    parallel.check_batch_size(batch_size, microbatches)
  assert str(caught.value).startswith(f"train.batch_size={batch_size} must")
