"""Pickles give arrays or one line, whatever they ask for."""

import builtins
import collections
import functools
import os
import pickle
import struct
import tracemalloc

import numpy as np
import pytest

from byol_jax.interop import pickles

ALLOWED = {
  **pickles.NUMPY_GLOBALS,
  "collections.OrderedDict": pickles.Dict,
}


class Asks:
  """Is pickled as a call of a function."""

  def __init__(self, function, *args, state=None):
    self._reduced = (function, args, state)

  def __reduce__(self):
    return self._reduced


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_arrays_of_numpy_are_read_as_they_are(protocol):
  written = collections.OrderedDict(
    a=np.arange(6, dtype=np.float32).reshape(2, 3),
    columns=np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    big_endian=np.arange(3, dtype=">i4"),
    empty=np.zeros((0, 5), np.float32),
    number=np.float64(0.1),
    others=[1, -(2**40), 0.5, "text", None, True, (1, (2, 3), 4, 5)],
  )
  found = pickles.read(pickle.dumps(written, protocol), ALLOWED)
  assert list(found) == list(written)
  assert found["others"] == written["others"]
  for name in list(written)[:5]:
    array = found[name].value
    np.testing.assert_array_equal(array, written[name])
    assert array.dtype == written[name].dtype


class Ran(Exception):
  """The code of a pickle was executed."""


def attack():
  raise Ran


@pytest.mark.parametrize(
  ("hostile", "named"),
  [
    (Asks(os.system, "true"), r"asks for (posix|nt)\.system"),
    (Asks(builtins.eval, "1"), r"asks for \w+\.eval"),
    (Asks(functools.partial, os.getcwd), r"asks for functools\.partial"),
    (Asks(getattr, "os", "system"), r"asks for \w+\.getattr"),
    (Asks(attack), r"asks for .*pickles_test\.attack"),
    (np.array([Asks(attack)], object), "type 'O8'"),
    (np.zeros(2, [("x", "f4")]), "type 'V4'"),
    (np.zeros(2, "M8[s]"), "type 'M8'"),
    (
      {"w": collections.OrderedDict(f=os.system)},
      r"asks for (posix|nt)\.system",
    ),
  ],
)
@pytest.mark.parametrize("protocol", [2, 4])
def test_what_no_array_needs_is_refused_by_name(hostile, named, protocol):
  written = pickle.dumps(hostile, protocol)
  with pytest.raises(pickles.RefusedError, match=named):
    pickles.read(written, ALLOWED)


def of_numpy(shape, data, dtype="f4"):
  """A pickle of an array whose state is made up."""
  array = Asks(
    np._core.multiarray._reconstruct,
    np.ndarray,
    (0,),
    b"b",
    state=(1, shape, np.dtype(dtype), False, data),
  )
  return pickle.dumps(array, 2)


def nested(depth):
  """A pickle whose key is a tuple in a tuple and so on."""
  return b"\x80\x02})" + b"\x85" * depth + b"Ns."


@pytest.mark.parametrize(
  ("written", "reason"),
  [
    (b"", "damaged or cut off"),
    (pickle.dumps(np.zeros(9), 2)[:-40], "damaged or cut off"),
    (of_numpy((2**40,), b"\0" * 4), "needs 4398046511104"),
    (of_numpy((2**20, -(2**20)), b""), "an array of shape"),
    (of_numpy((1.0, 2), b"\0" * 8), "an array of shape"),
    (of_numpy((1,) * 40, b"\0" * 4), "an array of shape"),
    (of_numpy((3,), "\u1234"), "needs 12"),
    (of_numpy((), ("\u1234",) * 4), "damaged"),
    # A text, bytes and a frame of more than the file, and a memory of 2**31.
    (b"\x80\x02X\xff\xff\xff\xffabc.", "damaged or cut off"),
    (b"\x80\x05\x8e" + struct.pack("<Q", 2**40) + b"a.", "damaged or cut off"),
    (b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b"a.", "damaged or cut off"),
    (b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b"N.N", "leads to None"),
    (b"\x80\x02Nr\xff\xff\xff\x7f.", "leads to None"),
    (nested(100_000), "a key of type tuple"),
    (b"\x80\x02cnumpy\nndarray\n" + b"}b.", "changes something"),
    (b"\x80\x02NNR.", "no function"),
    (b"\x80\x02]NNs.", "no dictionary"),
    (b"\x80\x02}Na.", "no list"),
    (b"\x80\x02NQ.", "refers to another file"),
    (b"\x80\x02NN.", "damaged or cut off"),
    (b"(S'a'\nI1\nd.", "uses the step"),
  ],
)
def test_damaged_and_absurd_files_take_no_memory(written, reason):
  tracemalloc.start()
  try:
    found = pickles.read(written, ALLOWED)
    message = f"leads to {found}"
  except pickles.RefusedError as error:
    message = str(error)
  finally:
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
  assert reason in message
  assert len(message) < 500
  assert peak < 60e6


def test_a_file_of_many_small_objects_is_refused(monkeypatch):
  monkeypatch.setattr(pickles, "_MOST_STEPS", 1000)
  for steps in (900, 1100):
    written = b"\x80\x02" + b"}" * steps + b"."
    with pytest.raises(pickles.RefusedError) as raised:
      pickles.read(written, ALLOWED)
    assert ("more than 1000 steps" in str(raised.value)) == (steps > 1000)


def test_any_flipped_byte_gives_something_or_one_line():
  random = np.random.RandomState(0)
  arrays = {"a": np.arange(4.0), "b": [np.ones((2, 2), np.float32), 3]}
  messages = []
  for protocol in (2, 4):
    written = pickle.dumps(arrays, protocol)
    for position in range(len(written)):
      spoilt = bytearray(written)
      spoilt[position] ^= random.randint(1, 256)
      try:
        pickles.read(bytes(spoilt), ALLOWED)
      except pickles.RefusedError as error:
        messages.append(str(error))
  assert len(messages) > 100
  assert not any("\n" in message for message in messages)
