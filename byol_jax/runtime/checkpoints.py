"""Checkpoints of any pytree of arrays, written by orbax in the background.

A checkpoint stores leaves by path, such as `online_params['classifier']['w']`,
so that reading it needs none of the classes of the saved tree. Beside them lie
their checksums, since the format itself (OCDBT and zarr) has none of the data.
"""

import contextlib
import functools
import gc
import json
import logging as std_logging
import pathlib
import re
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging

from byol_jax import errors
from byol_jax.runtime import checkpoint_storage, files, uncaught
from byol_jax.runtime import leaves as leaves_lib

_CHECKSUMS = "checksums"  # Of all leaves, in the custom metadata of orbax.


class DamagedError(errors.UserError):
  """None of the checkpoints that were asked for can be read."""


class Checkpoints(contextlib.AbstractContextManager["Checkpoints"]):
  """Saves and restores the latest checkpoints of a run.

  Each is a folder named by its step. Only `save` writes to the directory, so
  that other programs can read it while a run trains. In a run of several
  processes, which all have the same state, only one should save.

  Args:
    directory: made by the first `save`.
    keep: checkpoints to keep; the oldest beyond them are deleted.
    keep_every: those whose step is a multiple of it are never deleted; 0: none.
    others: orbax' policies of what else is kept (`PreservationPolicy`).
  """

  def __init__(
    self,
    directory: str | pathlib.Path,
    keep: int,
    keep_every: int = 0,
    others: Sequence[Any] = (),
  ):
    self._directory = files.to_path(directory)
    self._storage = checkpoint_storage.open_storage(self._directory)
    policies = ocp.checkpoint_managers
    multiples = [policies.EveryNSteps(keep_every)] if keep_every else []
    self._preservation = policies.AnyPreservationPolicy(
      [policies.LatestN(keep), *multiples, *others]
    )
    self._damaged: set[int] = set()
    self._writing = False
    self._manager = self._open(read_only=True)

  def __exit__(self, *unused_exc_info) -> None:
    self.close()

  def latest_step(self) -> int | None:
    """Returns the step of the latest complete checkpoint, None without any."""
    self._wait()
    return self._manager.latest_step()

  def set_aside_above(self, step: int) -> None:
    """Lets the next `save` rename all checkpoints above a step.

    They could not be read, as training goes on from this step. Under their own
    names they would stop the same steps from being saved again.
    """
    steps = self._manager.all_steps()
    self._damaged.update(other for other in steps if other > step)

  def save(self, step: int, tree: Any) -> None:
    """Starts to write `tree` in the background.

    Args:
      step: nothing is written unless it is above `latest_step()`.
      tree: a pytree of arrays, copied to the host before this returns.

    Raises:
      UserError: this checkpoint or the previous one could not be written.
    """
    leaves = {
      path: np.asarray(leaf)
      for path, leaf in leaves_lib.by_path(jax.device_get(tree)).items()
    }
    with self._write_errors():
      self._storage.wait()
      if self._damaged or not self._writing:
        self._start_writing()
      # Orbax copies NumPy arrays before its thread writes them.
      self._manager.save(
        step,
        args=ocp.args.StandardSave(
          leaves, custom_metadata={_CHECKSUMS: leaves_lib.checksums(leaves)}
        ),
      )
      self._storage.store(self._manager.wait_until_finished)

  def restore(self, template: Any, step: int | None = None) -> Any:
    """Returns the tree saved at `step`, bit for bit, as NumPy arrays.

    Args:
      template: a pytree of the same structure; its leaves need a shape and a
        dtype only. None for a dictionary of all leaves by path.
      step: None for the latest checkpoint that can be read.

    Raises:
      DamagedError: none can be read.
      UserError: there is no such checkpoint, or its leaves differ from those of
        `template`.
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
    with self._hide_abandoned_reads():
      for candidate in candidates:
        self._storage.fetch(candidate)
        try:
          leaves = self._read(candidate)
        except (errors.UserError, MemoryError):
          raise
        except Exception as error:  # It depends on which part is damaged.
          logging.warning(
            "Checkpoint %d in %s cannot be read: %s",
            candidate,
            self._directory,
            _cause(error),
          )
          self._damaged.add(candidate)
        else:
          return self._like_template(template, leaves, candidate)
    tried = ", ".join(map(str, candidates))
    others = ", ".join(str(x) for x in reversed(steps) if x not in candidates)
    remedy = (
      f"use one of the steps {others}"
      if others
      else "move the directory away to start again from step 0"
    )
    raise DamagedError(
      f"No checkpoint in {self._directory} can be read (tried {tried}); put back a"
      f" copy, or {remedy}."
    )

  def close(self) -> None:
    """Waits until the last checkpoint is on disk.

    Raises:
      UserError: the last checkpoint could not be written.
    """
    with self._write_errors():
      try:
        self._storage.wait()
        self._manager.close()
      finally:
        self._storage.close()

  def _wait(self) -> None:
    """Waits for a save in progress, whose step orbax already reports."""
    with self._write_errors():
      self._storage.wait()
      self._manager.wait_until_finished()

  def _read(self, step: int) -> dict[str, np.ndarray]:
    """Returns leaves by path; raises any error if they differ from those saved."""
    try:
      leaves = self._manager.restore(step, args=ocp.args.StandardRestore())
      metadata = self._manager.item_metadata(step).custom_metadata
      expected = metadata[_CHECKSUMS] if metadata else None
    except (KeyError, UnicodeError, json.JSONDecodeError) as error:
      name = type(error).__name__
      raise ValueError(f"its _METADATA is damaged, {name}: {error}") from error
    if expected is None:
      logging.warning(
        "Checkpoint %d in %s is not verified: it has no checksums, like those of"
        " earlier versions.",
        step,
        self._directory,
      )
      return leaves
    found = leaves_lib.checksums(leaves)
    for path in sorted(expected.keys() | found):
      if expected.get(path) != found.get(path):
        raise ValueError(f"{path} differs from its checksum")
    return leaves

  def _open(self, *, read_only: bool) -> ocp.CheckpointManager:
    if not read_only:
      self._storage.folder.mkdir(parents=True, exist_ok=True)
    _quieten_orbax()
    this_process = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
      primary_host=this_process,
      active_processes={this_process},
      barrier_sync_key_prefix=str(this_process),
    )
    return ocp.CheckpointManager(
      self._storage.folder,
      # Without it, orbax guesses from one checkpoint, which may be damaged, how to
      # read them all.
      item_handlers=ocp.StandardCheckpointHandler(
        multiprocessing_options=alone
      ),
      options=ocp.CheckpointManagerOptions(
        read_only=read_only,
        create=False,  # To create it, orbax would wait for other processes.
        cleanup_tmp_directories=not read_only,
        lightweight_initialize=True,  # Reads no file, which may be damaged.
        preservation_policy=self._preservation,
        multiprocessing_options=alone,
      ),
    )

  def _start_writing(self) -> None:
    """Opens the directory for writing and renames damaged checkpoints."""
    self._manager.close()
    for step in self._damaged:
      folder = self._storage.folder / str(step)
      renamed = folder.with_name(f"damaged-{step}")
      shutil.rmtree(renamed, ignore_errors=True)  # Left by an earlier resume.
      folder.rename(renamed)
    self._damaged.clear()
    self._manager = self._open(read_only=False)
    self._writing = True

  def _like_template(
    self, template: Any, leaves: Mapping[str, np.ndarray], step: int
  ) -> Any:
    """Returns the leaves of step `step` in the structure of `template`."""
    if template is None:
      return dict(leaves)
    expected = leaves_lib.by_path(template)
    for path in [*expected, *leaves]:
      saved, wanted = (
        leaves_lib.kind(tree[path]) if path in tree else "absent"
        for tree in (leaves, expected)
      )
      if saved != wanted:
        raise errors.UserError(
          f"Checkpoint {step} in {self._directory} has another configuration:"
          f" {path} is {saved} there and {wanted} here; use the configuration"
          " that it was saved with, or another directory."
        )
    return jax.tree.unflatten(
      jax.tree.structure(template), [leaves[path] for path in expected]
    )

  @contextlib.contextmanager
  def _hide_abandoned_reads(self) -> Iterator[None]:
    """Hides what Python says of the reads that orbax abandons at an error."""
    asyncio_log = std_logging.getLogger("asyncio")
    with warnings.catch_warnings():
      warnings.filterwarnings("ignore", "coroutine .* was never awaited")
      asyncio_log.disabled = True
      try:
        yield
        if self._damaged:
          gc.collect()  # Python speaks when it deletes them: now.
      finally:
        asyncio_log.disabled = False

  @contextlib.contextmanager
  def _write_errors(self) -> Iterator[None]:
    try:
      yield
    except errors.UserError:  # Of a bucket.
      raise
    except (OSError, ValueError) as error:  # ValueError: tensorstore's.
      raise errors.UserError(
        f"Cannot write checkpoints to {self._directory}: {_cause(error)}; "
        "free space there or choose another directory."
      ) from error


def _cause(error: Exception) -> str:
  """Returns an error's message in one line, without tensorstore's settings."""
  line = (str(error) or repr(error)).splitlines()[0]
  return re.sub(r" \[(tensorstore_spec|os_error_code)=.*", "", line)


@functools.cache  # Once for the whole program.
def _quieten_orbax() -> None:
  """Hides what orbax says of errors that this module raises.

  These are its log and, from threads of tensorstore that are still at work when
  orbax has given up, tracebacks that say that its event loop is closed.
  """
  logging.get_absl_logger().addFilter(
    lambda record: "orbax" not in pathlib.Path(record.pathname).parts
  )
  uncaught.hide(lambda error: str(error) == "Event loop is closed")
