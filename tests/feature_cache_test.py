"""Features in files: computed once for everything they depend on."""

import random
import subprocess
import sys

import numpy as np
import pytest

from byol_jax import errors
from byol_jax.evaluation.feature_cache import fingerprint, load_or_compute
from byol_jax.evaluation.features import Features
from tests import command_line


class Compute:
  """Computes features of two batches, and counts its calls."""

  vectors = np.random.RandomState(0).randn(7, 3).astype(np.float32)
  calls = 0

  def __call__(self):
    self.calls += 1
    for part in (slice(0, 4), slice(4, 7)):
      yield Features(self.vectors[part], np.arange(7, dtype=np.int32)[part])


def check(found):
  np.testing.assert_array_equal(found.vectors, Compute.vectors)
  np.testing.assert_array_equal(found.labels, np.arange(7))


def test_features_are_computed_once_for_each_key(tmp_path):
  compute, folder = Compute(), tmp_path / "features" / "train"
  for _ in range(2):
    check(load_or_compute(folder, {"step": (1, 2)}, 7, compute))
  assert compute.calls == 1
  check(load_or_compute(folder, {"step": (1, 3)}, 7, compute))
  assert compute.calls == 2
  assert [path.name for path in folder.parent.iterdir()] == ["train"]


def flip(path, position=-1):
  data = bytearray(path.read_bytes())
  data[position] ^= 1
  path.write_bytes(data)


def test_features_are_right_whichever_byte_flips(tmp_path):
  key, folder = {"step": 20, "split": "train"}, tmp_path / "train"
  load_or_compute(folder, key, 7, Compute())
  files = sorted(folder.iterdir())
  places = [(f, i) for f in files for i in range(f.stat().st_size)]
  for file, position in random.Random(0).sample(places, 40):
    flip(file, position)
    check(load_or_compute(folder, key, 7, Compute()))


def test_a_key_that_damage_turns_into_another_is_noticed(tmp_path, caplog):
  load_or_compute(tmp_path / "train", {"step": 20}, 7, Compute())
  about = tmp_path / "train" / "about.json"
  about.write_text(about.read_text().replace("20", "30"))
  compute = Compute()
  check(load_or_compute(tmp_path / "train", {"step": 30}, 7, compute))
  assert compute.calls == 1
  assert "about.json differs" in caplog.text


@pytest.mark.parametrize("name", ["vectors.npy", "labels.npy", "about.json"])
@pytest.mark.parametrize(
  "damage",
  [flip, lambda path: path.unlink(), lambda path: path.write_bytes(b"")],
  ids=["flipped", "deleted", "emptied"],
)
def test_a_damaged_cache_is_noticed_and_computed_again(
  tmp_path, name, damage, caplog
):
  compute = Compute()
  load_or_compute(tmp_path / "train", {}, 7, compute)
  if name == "about.json" and damage is flip:
    (tmp_path / "train" / name).write_text('{"about": {}}')
  else:
    damage(tmp_path / "train" / name)
  with caplog.at_level("WARNING"):
    check(load_or_compute(tmp_path / "train", {}, 7, compute))
  assert compute.calls == 2
  assert "computed again" in caplog.text
  check(load_or_compute(tmp_path / "train", {}, 7, compute))
  assert compute.calls == 2


def test_a_stream_of_another_length_is_refused(tmp_path):
  with pytest.raises(RuntimeError, match="7 examples came where there are 8"):
    load_or_compute(tmp_path / "train", {}, 8, Compute())


def test_features_that_cannot_be_written_are_one_line(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(errors.UserError, match="Cannot write features") as info:
    load_or_compute(tmp_path / "file" / "train", {}, 7, Compute())
  assert "\n" not in str(info.value)


_FILL = """
import pathlib, sys
import numpy as np
from byol_jax import errors
from byol_jax.evaluation import feature_cache, features
batch = features.Features(np.ones((9, 20_000), "f"), np.zeros(9, "i"))
try:
  feature_cache.load_or_compute(pathlib.Path(sys.argv[1]), {}, 9, lambda: [batch])
except errors.UserError as error:
  print(error)
"""


def test_features_on_a_full_disk_are_one_line(tmp_path):
  """In a process of its own, which a memory map of the file would end."""
  size = "size=65536"
  mount = ["mount", "-t", "tmpfs", "-o", size, "tmpfs", tmp_path]
  if subprocess.run(mount, capture_output=True).returncode:
    pytest.skip("only root may mount a small disk")
  try:
    done = subprocess.run(
      [sys.executable, "-c", _FILL, tmp_path / "train"],
      cwd=command_line.ROOT,
      capture_output=True,
      text=True,
    )
    assert not list(tmp_path.iterdir())
  finally:
    subprocess.run(["umount", tmp_path], check=True)
  assert done.returncode == 0, done.stderr
  (line,) = done.stdout.splitlines()
  assert "Cannot write features" in line
  assert "No space left" in line


def test_other_parameters_have_another_fingerprint():
  tree = {"a": np.arange(3.0), "b": np.zeros(2)}
  other = {"a": np.arange(3.0), "b": np.array([0, 1e-30])}
  assert fingerprint(tree) == fingerprint(dict(tree))
  assert fingerprint(tree) != fingerprint(other)
