"""Files of torch.save give their tensors, or one line; torch is not needed.

`torch_files/` holds the same tensors as torch 2.14 wrote them, in its format of
today and, beside other things, in the one before version 1.6.
"""

import os
import pathlib
import pickle
import tracemalloc
import zipfile

import ml_dtypes
import numpy as np
import pytest

from byol_jax import errors
from byol_jax.interop import torch_pickle

FILES = pathlib.Path(__file__).parent / "torch_files"


@pytest.mark.parametrize("name", ["zip.pth", "legacy.pth"])
def test_tensors_are_read_as_torch_wrote_them(name):
  numbers = np.arange(24, dtype=np.float32)
  expected = {
    "plain": numbers.reshape(2, 3, 4),
    "channels_last": numbers.reshape(2, 3, 2, 2),
    "view": numbers[5:9],
    "transposed": numbers.reshape(4, 6).T,
    "half": numbers.astype(np.float16),
    "bfloat16": numbers.astype(ml_dtypes.bfloat16),
    "double": numbers.astype(np.float64),
    "long": np.int64(7),
    "int": numbers.astype(np.int32),
    "empty": numbers[:0],
    "parameter": numbers[:2],
  }
  found = torch_pickle.read(FILES / name)
  assert list(found) == list(expected)
  for key, array in expected.items():
    np.testing.assert_array_equal(found[key], array, err_msg=key)
    assert found[key].dtype == array.dtype


def repacked(path, **changes):
  """Writes zip.pth with changed members, the others as they are."""
  compression = changes.pop("compression", zipfile.ZIP_STORED)
  with (
    zipfile.ZipFile(FILES / "zip.pth") as old,
    zipfile.ZipFile(path, "w", compression) as new,
  ):
    for name in old.namelist():
      key = name.split("/", 1)[1].replace("/", "_").replace(".", "_")
      contents = changes.get(key, old.read(name))
      if contents is not None:
        new.writestr(name, contents)


class Runs:
  def __reduce__(self):
    return os.system, ("true",)


def tensor(offset=0, shape=(2,), strides=(1,), size=24):
  """A pickle of one tensor of the first storage, whose numbers are made up."""

  def numbers(*values):
    return b"(" + b"".join(
      b"\x8a\x08" + v.to_bytes(8, "little") for v in values
    )

  return (
    b"\x80\x02}X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n("
    b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000"
    b"X\x03\x00\x00\x00cpu"
    + numbers(size)[1:]
    + b"tQ"
    + numbers(offset)[1:]
    + numbers(*shape)
    + b"t"
    + numbers(*strides)
    + b"t\x89}tRs."
  )


def test_the_place_of_an_empty_tensor_does_not_matter(tmp_path):
  repacked(tmp_path / "a.pth", data_pkl=tensor(2**40, (0,), (2**62,)))
  (array,) = torch_pickle.read(tmp_path / "a.pth").values()
  assert array.shape == (0,)


def test_a_tensor_may_be_any_part_of_its_storage(tmp_path):
  contents = tensor(1, (3, 2), (4, 7))
  repacked(tmp_path / "a.pth", data_pkl=contents)
  (array,) = torch_pickle.read(tmp_path / "a.pth").values()
  np.testing.assert_array_equal(array, [[1, 8], [5, 12], [9, 16]])


@pytest.mark.parametrize(
  ("changes", "reason"),
  [
    ({"data_pkl": pickle.dumps({"w": Runs()}, 2)}, r"(posix|nt)\.system"),
    ({"data_pkl": None}, "no data.pkl"),
    ({"data_pkl": pickle.dumps({}, 2)}, "something else than named tensors"),
    ({"data_pkl": pickle.dumps({"w": 1}, 2)}, "something else than named"),
    ({"data_0": None}, "holds no 'zip/data/0'"),
    ({"data_0": b"\0" * 7}, "cut off in 'plain'"),
    ({"byteorder": b"big"}, "big-endian"),
    ({"compression": zipfile.ZIP_DEFLATED}, "larger than the file"),
    ({"data_pkl": tensor(23)}, "larger than its storage"),
    ({"data_pkl": tensor(0, (2, 2), (1, 23))}, "larger than its storage"),
    ({"data_pkl": tensor(0, (2**40,), (0,))}, "larger than its storage"),
    ({"data_pkl": tensor(2**63 - 1)}, "larger than its storage"),
    ({"data_pkl": tensor(0, (2,), (1, 1))}, "damaged or cut off"),
    ({"data_pkl": tensor(size=2**62)}, "cut off in 'w'"),
    (
      {"data_pkl": tensor(0, (0, 2**62, 2**62), (1, 1, 1))},
      "file of torch.save",
    ),
  ],
)
def test_what_holds_no_tensors_is_one_line(tmp_path, changes, reason):
  path = tmp_path / "changed.pth"
  repacked(path, **changes)
  tracemalloc.start()
  try:
    with pytest.raises(errors.UserError, match=reason) as raised:
      torch_pickle.read(path)
    assert tracemalloc.get_traced_memory()[1] < 20e6
  finally:
    tracemalloc.stop()
  assert str(raised.value).startswith(str(path))
  assert "\n" not in str(raised.value)


def test_parts_that_overlap_are_refused(tmp_path):
  """Ten members that are the same bytes would be ten times the file."""
  path = tmp_path / "overlap.pth"
  with zipfile.ZipFile(path, "w") as archive:
    archive.writestr("a/data.pkl", tensor())
    archive.writestr("a/data/0", b"\0" * 100_000)
    member = archive.getinfo("a/data/0")
    archive.filelist.extend([member] * 10)
  # Python keeps one member of each name.
  contents = path.read_bytes()
  for i in range(10):
    at = contents.rindex(b"a/data/0")
    contents = contents[:at] + f"a/data/{9 - i}".encode() + contents[at + 8 :]
  path.write_bytes(contents)
  with pytest.raises(errors.UserError, match="larger than the file"):
    torch_pickle.read(path)


@pytest.mark.parametrize("name", ["zip.pth", "legacy.pth"])
def test_damage_is_one_line_or_changes_numbers(name, tmp_path):
  contents = (FILES / name).read_bytes()
  path = tmp_path / "spoilt.pth"
  random = np.random.RandomState(0)
  messages = []
  for position in range(0, len(contents), 25):
    spoilt = bytearray(contents)
    spoilt[position] ^= random.randint(1, 256)
    for version in (bytes(spoilt), contents[:position]):
      path.write_bytes(version)
      try:
        torch_pickle.read(path)
      except errors.UserError as error:
        messages.append(str(error))
  assert len(messages) > len(contents) // 25
  assert not any("\n" in message for message in messages)


def test_what_is_no_file_is_one_line(tmp_path):
  os.mkfifo(tmp_path / "pipe.pth")  # To open it would wait for a program.
  for name in ("absent.pth", "pipe.pth", "."):
    with pytest.raises(errors.UserError, match="cannot be read as a file"):
      torch_pickle.read(tmp_path / name)
