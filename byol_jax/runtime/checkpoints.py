"""Checkpoints of any pytree of arrays, written by orbax in the background.

A checkpoint holds the leaves by path (`online_params['classifier']['w']`), so
that it can be read without the classes it was saved from.
"""

import contextlib
import pathlib
import re
import shutil
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging

from byol_jax import errors

# Orbax logs every stage of every save, and each failure several times over with
# its traceback; what goes wrong is raised as well.
logging.get_absl_logger().addFilter(
  lambda record: "orbax" not in pathlib.Path(record.pathname).parts
)


class Checkpoints:
  """The newest `keep` checkpoints of a run, one folder a step in `directory`.

  Only `save` writes to the directory, so that a running training can be read
  from meanwhile. Of several processes, one writes: the state is the same in all.
  """

  def __init__(self, directory: str | pathlib.Path, keep: int):
    self._directory = pathlib.Path(directory).absolute()
    self._keep = keep
    self._damaged: set[int] = set()
    self._writing = False
    self._manager = self._open(read_only=True)

  def __enter__(self) -> "Checkpoints":
    return self

  def __exit__(self, *unused_exc_info) -> None:
    self.close()

  def latest_step(self) -> int | None:
    """Returns the step of the newest complete checkpoint, None without any."""
    self._wait()
    return self._manager.latest_step()

  def save(self, step: int, tree: Any) -> None:
    """Writes `tree` while the caller goes on.

    Args:
      step: its name; nothing is written unless it is above `latest_step()`.
      tree: a pytree of arrays, copied to the host before this returns.

    Raises:
      UserError: this checkpoint or the one before it could not be written.
    """
    leaves = {
      path: np.asarray(leaf)
      for path, leaf in _by_path(jax.device_get(tree)).items()
    }
    with self._write_errors():
      if self._damaged or not self._writing:
        self._start_writing()
      # Orbax copies numpy arrays before it goes to the background.
      self._manager.save(step, args=ocp.args.StandardSave(leaves))

  def restore(self, template: Any, step: int | None = None) -> Any:
    """Returns the tree saved at `step`, bit for bit, as numpy arrays.

    Args:
      template: a pytree like the one saved, of anything with shape and dtype.
      step: None for the newest checkpoint that can be read.

    Raises:
      UserError: there is no such checkpoint, none can be read, or it holds
        other leaves than `template`.
    """
    self._wait()
    steps = sorted(self._manager.all_steps(), reverse=True)
    if not steps or step not in (None, *steps):
      raise errors.UserError(
        f"{self._directory} holds no checkpoint"
        + ("" if step is None else f" of step {step}")
        + f"; it has: {', '.join(map(str, reversed(steps))) or 'none'}."
      )
    candidates = steps if step is None else [step]
    for candidate in candidates:
      try:
        leaves = self._manager.restore(
          candidate, args=ocp.args.StandardRestore()
        )
      # Damage shows as whatever the reader of the damaged part raises.
      except Exception as error:
        logging.warning(
          "Checkpoint %d in %s cannot be read: %s",
          candidate,
          self._directory,
          _cause(error),
        )
        self._damaged.add(candidate)
      else:
        return self._matched(template, leaves, candidate)
    raise errors.UserError(
      f"No checkpoint in {self._directory} can be read (tried "
      f"{', '.join(map(str, candidates))}); put back a copy, or remove the "
      "directory to start anew."
    )

  def close(self) -> None:
    """Waits until everything is on disk.

    Raises:
      UserError: the last checkpoint could not be written.
    """
    with self._write_errors():
      self._manager.close()

  def _wait(self) -> None:
    """Ends the save under way; until then orbax counts its step as done."""
    with self._write_errors():
      self._manager.wait_until_finished()

  def _open(self, *, read_only: bool) -> ocp.CheckpointManager:
    if not read_only:
      self._directory.mkdir(parents=True, exist_ok=True)
    alone = jax.process_index()
    return ocp.CheckpointManager(
      self._directory,
      options=ocp.CheckpointManagerOptions(
        read_only=read_only,
        create=False,  # Of several processes, orbax would wait for the others.
        cleanup_tmp_directories=not read_only,
        preservation_policy=ocp.checkpoint_managers.LatestN(self._keep),
        multiprocessing_options=ocp.options.MultiprocessingOptions(
          primary_host=alone,
          active_processes={alone},
          barrier_sync_key_prefix=str(alone),
        ),
      ),
    )

  def _start_writing(self) -> None:
    """Opens the directory for writing, with damaged checkpoints set aside.

    Left in place they would stop the same steps from being saved again.
    """
    self._manager.close()
    for step in self._damaged:
      folder = self._directory / str(step)
      aside = folder.with_name(f"damaged-{step}")
      shutil.rmtree(aside, ignore_errors=True)  # From an earlier time.
      folder.rename(aside)
    self._damaged.clear()
    self._manager = self._open(read_only=False)
    self._writing = True

  def _matched(
    self, template: Any, leaves: Mapping[str, np.ndarray], step: int
  ) -> Any:
    """`leaves` in the structure of `template`, if they are the same leaves."""
    expected = _by_path(template)
    for path in [*expected, *leaves]:
      saved, wanted = (
        f"{tree[path].dtype}{list(tree[path].shape)}"
        if path in tree
        else "absent"
        for tree in (leaves, expected)
      )
      if saved != wanted:
        raise errors.UserError(
          f"Checkpoint {step} in {self._directory} is of another "
          f"configuration: {path} is {saved} there and {wanted} here; use the "
          "configuration it was saved with, or another directory."
        )
    return jax.tree.unflatten(
      jax.tree.structure(template), [leaves[path] for path in expected]
    )

  @contextlib.contextmanager
  def _write_errors(self) -> Iterator[None]:
    try:
      yield
    except (OSError, ValueError) as error:  # ValueError: tensorstore's.
      raise errors.UserError(
        f"Cannot write checkpoints to {self._directory}: {_cause(error)}; "
        "free space there or choose another directory."
      ) from error


def _by_path(tree: Any) -> dict[str, Any]:
  """The leaves of `tree` under names such as `online_params['linear']['w']`."""
  return {
    jax.tree_util.keystr(path).lstrip("."): leaf
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
  }


def _cause(error: Exception) -> str:
  """What went wrong, in one line, without tensorstore's own settings."""
  line = (str(error) or repr(error)).splitlines()[0]
  return re.sub(r" \[(tensorstore_spec|os_error_code)=.*", "", line)
