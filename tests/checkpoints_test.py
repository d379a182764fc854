"""Checkpoints come back bit for bit, and survive kills and faulty disks."""

import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import threading
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import logging

from byol_jax import errors
from byol_jax.runtime import checkpoints


class _State(NamedTuple):
  step: Any
  params: Any
  opt_state: Any


def _state(step: int, width: int = 6) -> _State:
  rng = np.random.default_rng(step)
  weights = rng.normal(size=(4, width)).astype(np.float32)
  weights[0, 0] = np.nan
  return _State(
    step=np.asarray(step, np.int32),
    params={"net/~/linear": {"w": jnp.asarray(weights), "b": np.zeros(3)}},
    opt_state=(jnp.int32(step), (), [jnp.ones(3, jnp.bfloat16)], None),
  )


def _save(directory: pathlib.Path, *steps: int, keep: int = 10) -> None:
  with checkpoints.Checkpoints(directory, keep) as saved:
    for step in steps:
      saved.save(step, _state(step))


def _restore(directory: pathlib.Path, step: int | None = None) -> _State:
  with checkpoints.Checkpoints(directory, 10) as saved:
    return saved.restore(_state(0), step)


def _assert_same(actual: Any, expected: Any) -> None:
  assert jax.tree.structure(actual) == jax.tree.structure(expected)
  for one, other in zip(
    jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True
  ):
    other = np.asarray(other)
    assert (one.dtype, one.shape) == (other.dtype, other.shape)
    assert one.tobytes() == other.tobytes()


def _damage(directory: pathlib.Path, step: int, how: str) -> None:
  """Deletes or halves the largest file with data of a checkpoint."""
  files = (directory / str(step)).rglob("d/*")
  largest = max(files, key=lambda file: file.stat().st_size)
  if how == "deleted":
    largest.unlink()
  else:
    os.truncate(largest, largest.stat().st_size // 2)


def test_restored_tree_is_bit_equal_with_its_types_and_structure(tmp_path):
  _save(tmp_path, 7)
  _assert_same(_restore(tmp_path), _state(7))


def test_template_may_be_shapes_only(tmp_path):
  _save(tmp_path, 7)
  shapes = jax.eval_shape(lambda: _state(0))
  with checkpoints.Checkpoints(tmp_path, 1) as saved:
    restored = saved.restore(shapes._replace(params=_state(0).params))
  _assert_same(restored, _state(7))


def test_an_import_leaves_the_logs_of_others_alone():
  code = (
    "from absl import logging; from byol_jax.runtime import checkpoints;"
    " print(logging.get_absl_logger().filters)"
  )
  done = subprocess.run(
    [sys.executable, "-c", code],
    cwd=pathlib.Path(__file__).parent.parent,
    capture_output=True,
    text=True,
    check=True,
  )
  assert done.stdout == "[]\n"


def test_orbax_logs_nothing_and_others_are_heard(tmp_path, caplog):
  _save(tmp_path, 1)
  _save(tmp_path, 2)  # A second manager.
  logging.warning("heard")
  assert [record.getMessage() for record in caplog.records] == ["heard"]


def test_any_step_kept_can_be_restored(tmp_path):
  _save(tmp_path, 1, 2, 3)
  _assert_same(_restore(tmp_path, 2), _state(2))


def test_only_the_newest_are_kept(tmp_path):
  _save(tmp_path, 1, 2, 3, 4, keep=2)
  assert sorted(p.name for p in tmp_path.iterdir()) == ["3", "4"]


def test_multiples_of_keep_every_are_kept_for_good(tmp_path):
  for steps in ((1, 2, 3, 4), (5, 6, 7, 8, 9, 10)):
    with checkpoints.Checkpoints(tmp_path, 2, keep_every=3) as saved:
      for step in steps:
        saved.save(step, _state(step))
  kept = sorted(int(p.name) for p in tmp_path.iterdir())
  assert kept == [3, 6, 9, 10]


def test_empty_directory_has_no_latest_step_and_is_not_created(tmp_path):
  with checkpoints.Checkpoints(tmp_path / "new", 2) as saved:
    assert saved.latest_step() is None
    with pytest.raises(errors.UserError, match="holds no checkpoint"):
      saved.restore(_state(0))
  assert not (tmp_path / "new").exists()


def test_asking_for_a_step_not_there_lists_those_that_are(tmp_path):
  _save(tmp_path, 1, 2)
  with pytest.raises(errors.UserError, match=r"step 5; it has: 1, 2\.$"):
    _restore(tmp_path, 5)


def test_saving_a_step_again_keeps_the_first(tmp_path):
  with checkpoints.Checkpoints(tmp_path, 2) as saved:
    saved.save(3, _state(3))
    saved.save(3, _state(4))
  _assert_same(_restore(tmp_path), _state(3))


@pytest.fixture
def stuck_disk(monkeypatch):
  """Delays the writes of orbax until the test releases them."""
  release = threading.Event()
  handler = checkpoints.ocp.type_handlers.NumpyHandler
  write = handler._background_serialize

  async def late(*args, **kwargs):
    assert release.wait(10)
    return await write(*args, **kwargs)

  monkeypatch.setattr(handler, "_background_serialize", late)
  yield release
  release.set()


def test_arrays_may_be_overwritten_and_donated_right_after_save(
  tmp_path, stuck_disk
):
  host = np.arange(1000.0, dtype=np.float32)
  device = jnp.arange(1000.0)
  add_one = jax.jit(lambda x: x + 1, donate_argnums=0)
  with checkpoints.Checkpoints(tmp_path, 1) as saved:
    saved.save(1, {"host": host, "device": device})
    host[:] = -1
    for _ in range(3):
      device = add_one(device)
    device.block_until_ready()
    assert not (tmp_path / "1").exists()  # Not written yet.
    stuck_disk.set()
  expected = np.arange(1000.0, dtype=np.float32)
  template = {"host": expected, "device": expected}
  with checkpoints.Checkpoints(tmp_path, 1) as saved:
    _assert_same(saved.restore(template), template)


_KILLED_WRITER = """
import sys
import numpy as np
from byol_jax.runtime import checkpoints
saved = checkpoints.Checkpoints(sys.argv[1], 5)
saved.save(1, {"w": np.full(10, 1.0)})
assert saved.latest_step() == 1
print("saving", flush=True)
rng = np.random.default_rng(0)
saved.save(2, {"w": rng.normal(size=20_000_000)})
print("going on", flush=True)
sys.stdin.read()
"""


def test_kill_in_mid_save_leaves_the_last_complete_one(tmp_path):
  with subprocess.Popen(
    [sys.executable, "-c", _KILLED_WRITER, tmp_path],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    cwd=pathlib.Path(__file__).parent.parent,
  ) as writer:
    assert writer.stdout.readline() == b"saving\n"
    assert writer.stdout.readline() == b"going on\n"
    writer.send_signal(signal.SIGKILL)
  # Otherwise the save ended before the kill, and the test shows nothing.
  assert [p.name for p in tmp_path.iterdir() if "tmp" in p.name]
  with checkpoints.Checkpoints(tmp_path, 5) as saved:
    assert saved.latest_step() == 1
    saved.save(3, {"w": np.full(10, 3.0)})
  # The next save has removed the remains of the killed one.
  assert sorted(p.name for p in tmp_path.iterdir()) == ["1", "3"]


@pytest.mark.parametrize("how", ["deleted", "truncated"])
def test_damaged_newest_falls_back_with_a_warning(tmp_path, caplog, how):
  _save(tmp_path, 1, 2)
  _damage(tmp_path, 2, how)
  _assert_same(_restore(tmp_path), _state(1))
  warnings = [r for r in caplog.records if r.levelname == "WARNING"]
  assert "Checkpoint 2" in warnings[0].getMessage()


def _flip(file: pathlib.Path, position: int) -> None:
  data = bytearray(file.read_bytes())
  data[position] ^= 0xFF
  file.write_bytes(data)


@pytest.fixture
def tracebacks(monkeypatch):
  """What Python would print of errors that nobody can catch."""
  printed = []
  monkeypatch.setattr(sys, "unraisablehook", printed.append)
  monkeypatch.setattr(sys, "excepthook", lambda *error: printed.append(error))
  checkpoints._quieten_orbax.cache_clear()
  yield printed
  checkpoints._quieten_orbax.cache_clear()


def test_late_threads_print_nothing_and_other_errors_are_printed(
  tmp_path, tracebacks
):
  checkpoints.Checkpoints(tmp_path, 2).close()
  late, other = RuntimeError("Event loop is closed"), RuntimeError("other")
  sys.excepthook(RuntimeError, late, None)
  assert not tracebacks
  sys.excepthook(RuntimeError, other, None)
  assert tracebacks == [(RuntimeError, other, None)]


def test_any_flipped_byte_does_no_harm_or_is_noticed(
  tmp_path, caplog, tracebacks
):
  """The largest leaf is stored by itself, where orbax has no checksums."""
  with checkpoints.Checkpoints(tmp_path, 2) as saved:
    for step in (1, 2):
      saved.save(step, _state(step, width=400))
  files = sorted(f for f in (tmp_path / "2").rglob("*") if f.is_file())
  places = [(f, i) for f in files for i in range(f.stat().st_size)]
  noticed = set()
  for file, position in random.Random(0).sample(places, 40):
    caplog.clear()
    _flip(file, position)
    with checkpoints.Checkpoints(tmp_path, 2) as saved:
      restored = saved.restore(_state(0, width=400))
    _flip(file, position)
    if restored.step == 1:
      (line,) = [r.getMessage() for r in caplog.records]
      assert "Checkpoint 2" in line
      assert "\n" not in line
      noticed.add(line)
    _assert_same(restored, _state(int(restored.step), width=400))
  leaf = "params['net/~/linear']['w'] differs from its checksum"
  assert any(line.endswith(leaf) for line in noticed)
  assert not tracebacks


def test_a_checkpoint_without_checksums_is_read_with_a_note(tmp_path, caplog):
  """Earlier versions wrote none."""
  _save(tmp_path, 1, 2)
  file = tmp_path / "2" / "default" / "_METADATA"
  metadata = json.loads(file.read_text())
  assert set(metadata["custom_metadata"]) == {"checksums"}
  file.write_text(json.dumps(metadata | {"custom_metadata": None}))
  _assert_same(_restore(tmp_path), _state(2))
  assert "Checkpoint 2" in caplog.text
  assert "not verified" in caplog.text


@pytest.mark.parametrize("name", ["default", "default/_METADATA"])
def test_a_lost_part_of_the_newest_does_not_hide_the_others(tmp_path, name):
  _save(tmp_path, 1, 2)
  (tmp_path / "2" / name).rename(tmp_path / "2" / "lost")
  _assert_same(_restore(tmp_path), _state(1))


def test_a_damaged_step_file_does_not_stop_the_program(tmp_path):
  _save(tmp_path, 1, 2)
  (tmp_path / "2" / "_CHECKPOINT_METADATA").write_text('{"metrics": 5}')
  _assert_same(_restore(tmp_path), _state(1))


def test_training_on_from_an_older_one_sets_the_damaged_one_aside(tmp_path):
  _save(tmp_path, 1, 3)
  for _ in range(2):  # The second time replaces `damaged-3`.
    _damage(tmp_path, 3, "deleted")
    with checkpoints.Checkpoints(tmp_path, 10) as saved:
      saved.restore(_state(0))
      saved.restore(_state(0))
      saved.save(2, _state(2))
      saved.save(3, _state(3))
  _assert_same(_restore(tmp_path), _state(3))
  assert sorted(p.name for p in tmp_path.iterdir()) == [
    "1",
    "2",
    "3",
    "damaged-3",
  ]


def test_reading_changes_nothing_in_the_directory(tmp_path):
  _save(tmp_path, 1, 2)
  _damage(tmp_path, 2, "deleted")
  shutil.copytree(tmp_path / "1", tmp_path / "3.orbax-checkpoint-tmp")
  before = sorted(tmp_path.rglob("*"))
  _restore(tmp_path)
  assert sorted(tmp_path.rglob("*")) == before


def test_a_damaged_step_names_the_others(tmp_path):
  _save(tmp_path, 1, 2, 3)
  _damage(tmp_path, 2, "truncated")
  with pytest.raises(errors.UserError, match="one of the steps 1, 3") as info:
    _restore(tmp_path, 2)
  assert "directory away" not in str(info.value)


def test_errors_that_say_nothing_of_a_file_are_passed_on(tmp_path, monkeypatch):
  _save(tmp_path, 1, 2)
  for error in (errors.UserError("taken over"), MemoryError()):

    def read(*_, error=error):
      raise error

    monkeypatch.setattr(checkpoints.Checkpoints, "_read", read)
    with pytest.raises(type(error)):
      _restore(tmp_path)


def test_when_none_can_be_read_one_line_names_directory_and_remedy(tmp_path):
  _save(tmp_path, 1, 2)
  for step in (1, 2):
    _damage(tmp_path, step, "truncated")
  with pytest.raises(errors.UserError, match="move the directory") as info:
    _restore(tmp_path)
  assert str(tmp_path) in str(info.value)
  assert "\n" not in str(info.value)


@pytest.mark.parametrize(
  ("template", "expected"),
  [
    (
      _state(0, width=5),
      r"params\['net/~/linear'\]\['w'\] is float32\[4, 6\] there and "
      r"float32\[4, 5\] here",
    ),
    (
      _state(0)._replace(params={}),
      r"params\['net/~/linear'\]\['b'\] is float64\[3\] there and absent here",
    ),
    (
      _state(0)._replace(step={"new": np.zeros(2)}),
      r"step\['new'\] is absent there and float64\[2\] here",
    ),
    (
      _state(0)._replace(step=np.zeros((), np.int64)),
      r"step is int32\[\] there and int64\[\] here",
    ),
  ],
)
def test_template_of_another_configuration_names_the_leaf(
  tmp_path, template, expected
):
  _save(tmp_path, 1, 2)
  with (
    checkpoints.Checkpoints(tmp_path, 10) as saved,
    pytest.raises(errors.UserError, match=expected) as info,
  ):
    saved.restore(template)
  assert "Checkpoint 2" in str(info.value)
  assert "\n" not in str(info.value)


@pytest.mark.parametrize(
  "error",
  [OSError(30, "Read-only file system"), ValueError("RESOURCE_EXHAUSTED")],
)
def test_an_error_in_the_background_shows_at_the_next_save(
  tmp_path, monkeypatch, capfd, error
):
  async def fail(*_, **__):
    raise error

  with checkpoints.Checkpoints(tmp_path, 1) as saved:
    saved.save(1, _state(1))
    assert saved.latest_step() == 1
    with monkeypatch.context() as disk:
      handler = checkpoints.ocp.type_handlers.NumpyHandler
      disk.setattr(handler, "_background_serialize", fail)
      saved.save(2, _state(2))
      with pytest.raises(errors.UserError, match="Cannot write") as info:
        saved.save(3, _state(3))
    assert "\n" not in str(info.value)
  _assert_same(_restore(tmp_path), _state(1))
  assert "Traceback" not in capfd.readouterr().err


def test_a_directory_deleted_while_running_is_made_again(tmp_path):
  with checkpoints.Checkpoints(tmp_path / "new", 1) as saved:
    saved.save(1, _state(1))
    assert saved.latest_step() == 1
    shutil.rmtree(tmp_path / "new")
    saved.save(2, _state(2))
  _assert_same(_restore(tmp_path / "new"), _state(2))


def test_unwritable_directory_is_one_line(tmp_path):
  (tmp_path / "file").touch()
  directory = tmp_path / "file" / "checkpoints"
  saved = checkpoints.Checkpoints(directory, 2)
  with pytest.raises(errors.UserError, match="Not a directory") as info:
    saved.save(1, _state(1))
  assert str(directory) in str(info.value)
  assert "\n" not in str(info.value)


# Files above the limit cannot be written, as on a disk that is full.
_FULL_DISK = """
import resource, sys
import numpy as np
from byol_jax import errors
from byol_jax.runtime import checkpoints
saved = checkpoints.Checkpoints(sys.argv[1], 5)
saved.save(1, {"w": np.zeros(10)})
assert saved.latest_step() == 1
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
saved.save(2, {"w": np.random.default_rng(0).normal(size=100_000)})
try:
  saved.close()
except errors.UserError as error:
  print(error)
"""


def test_full_disk_is_reported_in_one_line_when_closing(tmp_path):
  done = subprocess.run(
    [sys.executable, "-c", _FULL_DISK, tmp_path],
    capture_output=True,
    text=True,
    check=True,
    cwd=pathlib.Path(__file__).parent.parent,
  )
  assert str(tmp_path) in done.stdout
  assert "File too large" in done.stdout
  assert done.stdout.count("\n") == 1
  assert "Traceback" not in done.stderr
  with checkpoints.Checkpoints(tmp_path, 5) as saved:
    assert saved.latest_step() == 1
