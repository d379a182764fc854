"""A run: a resolved configuration, its workdir, its data, plan and learner."""

import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np

from byol_jax.config import schema
from byol_jax.data.source import Source
from byol_jax.learning.learner import Learner, TrainState
from byol_jax.runtime import checkpoints, devices, processes
from byol_jax.training import (
  build,
  data_streams,
  resolve,
  saved_settings,
  workdir_files,
)
from byol_jax.training.plan import Plan, make_plan


class Run(NamedTuple):
  """A run, as training, evaluation and reports use it.

  Attributes:
    config: the resolved configuration, with the values that depend on the data.
    workdir: the folder that the run writes to.
    source: the data set.
    plan: its length, learning rate and tau.
    learner: the pure functions that train.
    extends: last step of the finished run in the workdir that this one makes
      longer, None if there is none.
  """

  config: schema.Config
  workdir: pathlib.Path
  source: Source
  plan: Plan
  learner: Learner
  extends: int | None = None

  @property
  def num_classes(self) -> int:
    """Outputs of the online classifier."""
    return _num_outputs(self.source)

  def initial_state(self) -> TrainState:
    """Returns the state before the first update, a function of the seed.

    It lies on the local devices as the batches do, and so as updates return it:
    otherwise `jax.jit` would compile an update again at its second call.
    """
    data = self.config.data
    image = np.zeros((1, *schema.image_shape(data), data.channels), np.float32)
    state = self.learner.init(
      jax.random.PRNGKey(self.config.seed), {"view1": image, "view2": image}
    )
    return devices.replicate(state)

  def open_checkpoints(self, *others: Any) -> checkpoints.Checkpoints:
    """Opens the checkpoints of the run; `others` as for `Checkpoints`."""
    settings = self.config.checkpoint
    return checkpoints.Checkpoints(
      workdir_files.checkpoint_folder(self.workdir),
      settings.keep,
      settings.keep_every,
      others,
    )


def prepare(config: schema.Config, workdir: pathlib.Path) -> Run:
  """Opens the data and checks the workdir, so that mistakes show early.

  Args:
    config: a validated configuration.
    workdir: may be missing, or hold an earlier part of the same run.

  Returns:
    The run.

  Raises:
    UserError: if a name in the configuration is unknown, the data cannot be
      read, or the workdir holds checkpoints of other settings or another length,
      unless its run has ended and this one is longer.
  """
  devices.check_batch_size(config.train.batch_size, config.train.microbatches)
  devices.check_group_size(config.model.batch_norm.group_size)
  source = processes.primary_first(lambda: data_streams.open_source(config))
  # A run that resumes with more or fewer processes sees the same batches.
  parts = processes.broadcast_from_primary(
    lambda: saved_settings.of_run(workdir).get("data.parts")
  )
  config = resolve.resolved(config, source, parts)
  num_examples = source.num_examples(source.dataset.pretrain)
  plan = make_plan(config, num_examples)

  def check_workdir() -> int | None:
    saved_settings.check(workdir, config, source.fingerprint)
    return saved_settings.check_length(workdir, config, num_examples)

  extends = processes.broadcast_from_primary(check_workdir)
  return Run(
    config=config,
    workdir=workdir,
    source=source,
    plan=plan,
    learner=build.build_learner(config, plan, _num_outputs(source)),
    extends=extends,
  )


def _num_outputs(source: Source) -> int:
  """Returns at least 1: without labels the classifier exists but does not learn."""
  return max(source.num_classes, 1)
