"""Makes a run of a checkpoint that DeepMind's code of BYOL wrote."""

import pathlib
import shlex
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import optax

from byol_jax import errors
from byol_jax.config import convert, schema, validation
from byol_jax.interop import (
  architecture,
  encoder_file,
  reference_file,
  warm_start,
  weights,
)
from byol_jax.interop.reference_file import Checkpoint
from byol_jax.learning import optimizers
from byol_jax.learning.learner import TrainState
from byol_jax.runtime import checkpoints, claim
from byol_jax.training import build, saved_settings, workdir_files


def write(
  config: schema.Config,
  path: str,
  workdir: pathlib.Path,
  tell: Callable[[str], None],
) -> None:
  """Writes a checkpoint of the reference as the checkpoint of a run of ours.

  It needs no images. The workdir also gets the online encoder, as --mode=export
  writes it. From the checkpoint of a linear evaluation, which has no target
  network, it gets the encoder only.

  Args:
    config: of the run. What the arrays decide, and the reference's normalisation,
      replaces its own values.
    path: of the file.
    workdir: is created.
    tell: is called with each line that the user should see.

  Raises:
    UserError: if the file cannot be read or its network is none of ours, or the
      workdir holds a run or cannot be written.
  """
  found = reference_file.read(path)
  try:
    settings = _settings(config, found.online_params)
    ours = convert.updated(config, settings)
    validation.validate(ours)
    num_classes = architecture.num_classes(found.online_params)
    check(ours, found, num_classes)
  except errors.UserError as error:
    raise reference_file.refusal(path, str(error).rstrip(".")) from error
  encoder = ours.model.encoder
  tell(
    f"{path}: {encoder.name} of width {encoder.width:g}, step {found.step},"
    f" {num_classes} classes."
  )
  with claim.Claim(workdir, tell):
    if workdir_files.checkpoint_steps(workdir):
      raise errors.UserError(
        f"{workdir} holds a run, which {path} would replace; choose another"
        " --workdir."
      )
    _write(ours, path, workdir, found, tell)
  flags = _flags(config, settings)
  if flags and found.target_params is not None:
    tell(f"Add to each command that uses {workdir}: {flags}")


def _write(
  config: schema.Config,
  path: str,
  workdir: pathlib.Path,
  found: Checkpoint,
  tell: Callable[[str], None],
) -> None:
  """Writes the encoder, and the run if there is one."""
  state = to_state(config, found, tell)
  exported = workdir / "encoder" / "encoder.safetensors"
  encoder_file.write(exported, config, state)
  tell(f"Written: {exported}")
  if found.target_params is None:
    tell("Note: the file holds no target network, so there is no run to go on.")
    return
  config.model.encoder.init_from = path
  origin = warm_start.origin(path, found.step)
  saved_settings.write(workdir, config, "", {"started_from": origin})
  folder = workdir_files.checkpoint_folder(workdir)
  with checkpoints.Checkpoints(folder, config.checkpoint.keep) as saved:
    saved.save(found.step, state)
  tell(f"Written: {folder / str(found.step)}")


def _settings(config: schema.Config, params: Mapping) -> dict[str, Any]:
  """Returns the settings that a checkpoint decides, and those left open."""
  of_encoder = architecture.of_encoder(params)
  return {
    **weights.usual_settings("same", of_encoder["data.channels"]),
    **of_encoder,
    **architecture.of_heads(params),
    # Published checkpoints were trained at the default.
    "data.image_size": config.data.image_size or schema.DataConfig().image_size,
    "data.parts": config.data.parts or 1,
  }


def check(config: schema.Config, found: Checkpoint, num_classes: int) -> None:
  """Raises `UserError`, the reason, if a tree is not that of our network.

  Args:
    config: with the settings that `architecture` infers.
    found: the checkpoint.
    num_classes: outputs of its classifier.
  """
  trees = [(found.online_params, found.online_state)]
  if found.target_params is not None and found.target_state is not None:
    trees.append((found.target_params, found.target_state))
  if found.momentum is not None:
    trees.append((found.momentum, found.online_state))
  network = build.build_network(config, num_classes)
  architecture.check(network, config, *trees)


def to_state(
  config: schema.Config, found: Checkpoint, tell: Callable[[str], None]
) -> TrainState:
  """Returns the state of training, with momentum if the optimizer is LARS.

  Args:
    config: names the optimizer.
    found: the checkpoint.
    tell: is called with a line if the momentum is not taken.
  """
  optimizer = optimizers.make_optimizer(
    lambda step: jnp.zeros(()), config.optimizer
  )
  values: dict[str, Any] = {"count": jnp.int32(found.step)}
  if found.momentum is not None and config.optimizer.name == "lars":
    values["trace"] = found.momentum
  elif found.target_params is not None:
    tell(
      "Note: the momentum of the optimizer starts at 0, as"
      + (
        " the file holds none."
        if found.momentum is None
        else f" that of the file is of lars, not {config.optimizer.name}."
      )
    )
  opt_state = optimizer.init(found.online_params)
  return TrainState(
    step=jnp.int32(found.step),
    online_params=found.online_params,
    target_params=found.target_params or {},
    online_state=found.online_state,
    target_state=found.target_state or {},
    opt_state=optax.tree_utils.tree_set(opt_state, None, **values),
  )


def _flags(config: schema.Config, settings: Mapping[str, Any]) -> str:
  """Returns the settings that differ from a configuration, as flags."""
  ours = convert.typed(config)
  return " ".join(
    shlex.quote(f"--config.{key}={value}")
    for key, value in settings.items()
    if key != "data.parts" and convert.value_at(ours, key) != value
  )
