"""What the primary process shares, with recorded instead of sent messages.

`multiprocess_test.py` runs real processes.
"""

import os
import socket
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from byol_jax import errors
from byol_jax.runtime import processes
from tests import command_line


class Wire:
  """Records the primary's broadcasts, and replays them to another process."""

  def __init__(self, monkeypatch):
    self._sent = []
    self.primary = True
    monkeypatch.setattr(processes, "is_multiprocess", lambda: True)
    monkeypatch.setattr(processes, "is_primary", lambda: self.primary)
    monkeypatch.setattr(
      processes.multihost_utils, "broadcast_one_to_all", self._broadcast
    )

  def _broadcast(self, value):
    if self.primary:
      self._sent.append(value)
      return value
    sent = self._sent.pop(0)
    shapes = [
      [np.shape(x) for x in (tree if isinstance(tree, list) else [tree])]
      for tree in (value, sent)
    ]
    assert shapes[0] == shapes[1]  # JAX would fail, or wait for ever.
    return sent

  def in_both(self, function, *makes):
    """What both processes return or raise, the primary's first."""
    outcomes = []
    for self.primary, make in zip((True, False), makes, strict=True):
      try:
        outcomes.append(function(make))
      except errors.UserError as error:
        outcomes.append(error)
    assert self._sent == []  # The other one has taken part in everything.
    return outcomes


@pytest.fixture
def wire(monkeypatch):
  return Wire(monkeypatch)


def fail(message):
  raise errors.UserError(message)


def test_arrays_arrive_bit_for_bit_with_their_types(wire):
  made = {
    "a": jnp.array([1.5, np.nan], jnp.bfloat16),
    "b": (np.arange(6).reshape(2, 3), "text", None),
  }
  here, there = wire.in_both(
    processes.broadcast_from_primary, lambda: made, lambda: fail("called")
  )
  for found in (here, there):
    assert found["a"].dtype == jnp.bfloat16
    assert found["a"].tobytes() == np.asarray(made["a"]).tobytes()
    np.testing.assert_array_equal(found["b"][0], made["b"][0])
    assert found["b"][1:] == ("text", None)


@pytest.mark.parametrize(
  "function", [processes.broadcast_from_primary, processes.primary_first]
)
def test_a_mistake_in_the_primary_ends_both(wire, function):
  called = []
  here, there = wire.in_both(
    function, lambda: fail("disk full"), lambda: called.append(1)
  )
  assert str(here) == "disk full"
  assert isinstance(there, errors.UserError)
  assert "primary" in str(there)
  assert called == []


def test_the_others_do_a_thing_after_the_primary(wire):
  order = []

  def make(name):
    order.append(name)
    return name

  found = wire.in_both(
    processes.primary_first, lambda: make("primary"), lambda: make("other")
  )
  assert found == order == ["primary", "other"]


def test_one_process_alone_sends_nothing(monkeypatch):
  monkeypatch.setattr(processes.multihost_utils, "broadcast_one_to_all", fail)
  monkeypatch.setattr(processes.multihost_utils, "process_allgather", fail)
  part = np.arange(3)
  assert processes.is_primary()
  assert processes.primary_first(lambda: part) is part
  assert processes.broadcast_from_primary(lambda: part) is part
  assert processes.all_gather_concat(part) is part
  processes.barrier()


def test_parts_of_different_lengths_are_concatenated_in_order(monkeypatch):
  parts = [np.arange(6).reshape(3, 2), np.arange(6, 8).reshape(1, 2)]

  def gather(value):
    """As if both had called it; the first one's value is compared."""
    if value.ndim == 0:
      return np.array([len(part) for part in parts])
    fill = np.zeros((2, 2), int)
    np.testing.assert_array_equal(value, parts[0])
    return np.stack([parts[0], np.concatenate([parts[1], fill])])

  monkeypatch.setattr(processes, "is_multiprocess", lambda: True)
  monkeypatch.setattr(processes.multihost_utils, "process_allgather", gather)
  found = processes.all_gather_concat(parts[0])
  np.testing.assert_array_equal(found, np.arange(8).reshape(4, 2))


# Process 1 gathers once and then hangs.
_HANGING = """
import sys, time
import numpy as np
from byol_jax.runtime import processes

address, index = sys.argv[1], int(sys.argv[2])
processes.initialize(address, 2, index, hang_seconds=2)
for n in range(2):
  print(processes.all_gather_concat(np.array([index])), flush=True)
  if index == 1:
    time.sleep(60)
  time.sleep(3)  # Time between gathers does not count.
"""


@pytest.mark.slow
def test_a_process_that_waits_for_one_that_hangs_ends_with_one_line():
  waiting, hanging = command_line.start_script_pair(_HANGING)
  done = command_line.ended(waiting)
  assert hanging.poll() is None
  hanging.kill()
  hanging.communicate()
  assert done.returncode == os.EX_TEMPFAIL, done.stderr
  assert done.stdout.splitlines()[-1] == "[0 1]"
  assert done.stderr == (
    "Process 0: another process hangs: its part did not come for 2 seconds"
    " (train.hang_seconds); run the same command again to resume.\n"
  )


@pytest.mark.parametrize(
  ("flags", "parts"),
  [
    (("", 2, None), ("--num_processes=2", "all three")),
    (("here:1", None, 0), ("--coordinator=here:1", "all three")),
    (("here:1", 2, 2), ("--process_id=2", "from 0 to 1")),
    (("here:1", 2, -1), ("--process_id=-1", "from 0 to 1")),
  ],
)
def test_incomplete_or_contradictory_flags_are_one_line(flags, parts):
  with pytest.raises(errors.UserError) as info:
    processes.initialize(*flags)
  for part in parts:
    assert part in str(info.value)
  assert "\n" not in str(info.value)


@pytest.mark.parametrize(
  ("coordinator", "bound"),
  [
    ("127.0.0.1:123", "127.0.0.1:123"),
    ("[::1]:123", "[::1]:123"),
    ("203.0.113.1:123", None),  # An address for documentation: nobody's.
    ("localhost:123", None),
    ("", None),
  ],
)
def test_an_address_of_this_machine_opens_no_other(
  coordinator, bound, monkeypatch
):
  monkeypatch.delenv("JAX_COORDINATOR_BIND_ADDRESS", raising=False)
  assert processes._bind_address(coordinator) == bound
  monkeypatch.setenv("JAX_COORDINATOR_BIND_ADDRESS", "127.0.0.2:1")
  assert processes._bind_address(coordinator) is None


@pytest.mark.slow
def test_the_primary_listens_on_the_given_address_only():
  """On a machine whose loopback has a second address."""
  script = """
import socket, sys
from byol_jax.runtime import processes

address = sys.argv[1]
processes.initialize(address, 1, 0)
port = int(address.rpartition(":")[2])
for host in ("127.0.0.1", "127.0.0.2"):
  with socket.socket() as s:
    print(s.connect_ex((host, port)) == 0)
"""
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    address = "127.0.0.1:{1}".format(*free.getsockname())
  env = {**os.environ}
  env.pop("JAX_COORDINATOR_BIND_ADDRESS", None)
  done = subprocess.run(
    [sys.executable, "-c", script, address],
    capture_output=True,
    text=True,
    cwd=command_line.ROOT,
    env=env,
  )
  assert done.stdout.split() == ["True", "False"], done.stderr
