"""The numbers of a run that follow from its configuration and its images."""

import math
from typing import NamedTuple

import jax

from byol_jax import errors
from byol_jax.config import schema
from byol_jax.learning import schedules, target

# The paper's ablation of batch sizes: top-1 on ImageNet after 300 epochs by the
# number of images that batch norm sees at once; gradients are accumulated to 4096
# (paper, section 5).
_TOP1_BY_GROUP = {4096: 72.5, 256: 71.8, 128: 69.6, 64: 59.7}

# Batch norm over fewer images gets a note. Our choice: accuracy already falls at
# 64 images, the smallest number in the paper.
_SMALL_GROUP = 16

# Steps are int32 in JAX.
_STEP_LIMIT = 2**31


class Plan(NamedTuple):
  """The numbers that the schedules follow and that a user should see.

  Attributes:
    num_examples: images in an epoch.
    batch_size: images per update, over all devices and micro-batches.
    microbatches: parts in which an update processes its batch.
    norm_groups: groups of devices with batch-norm statistics of their own; 0 without
      batch norm.
    total_steps: updates in the whole run.
    warmup_steps: updates until the learning rate peaks.
    peak_learning_rate: scaled with the batch.
    tau: of the first step, from the half-life or scaled with the batch if that is
      configured.
  """

  num_examples: int
  batch_size: int
  microbatches: int
  norm_groups: int
  total_steps: int
  warmup_steps: int
  peak_learning_rate: float
  tau: float

  @property
  def group_size(self) -> int:
    """Images of a view that share batch-norm statistics, where there are any."""
    return self.batch_size // self.microbatches // self.norm_groups

  @property
  def half_life(self) -> float:
    """Images after which the target has forgotten half of its past."""
    if self.tau in (0, 1):
      return 0.0 if self.tau == 0 else math.inf
    return self.batch_size * math.log(0.5) / math.log(self.tau)

  @property
  def steps_per_epoch(self) -> float:
    """Updates per epoch, not rounded."""
    return self.num_examples / self.batch_size


def make_plan(config: schema.Config, num_examples: int) -> Plan:
  """Turns epochs into steps as deepmind-research/byol/configs/byol.py does.

  Raises:
    UserError: if there are more steps than the state can count.
  """
  train, ema = config.train, config.ema
  epochs_in_steps = train.epochs * num_examples // train.batch_size
  tau = ema.base
  if ema.half_life:
    tau = target.tau_of_half_life(ema.half_life, train.batch_size)
  elif ema.scale_with_batch:
    tau = target.scaled_tau(ema.base, train.batch_size / ema.base_batch_size)
  total_steps = train.steps or max(epochs_in_steps, 1)
  warmup_epochs = config.optimizer.warmup_epochs
  warmup_steps = int(warmup_epochs * num_examples) // train.batch_size
  for setting, steps in (
    (f"train.epochs={train.epochs}", total_steps),
    (f"optimizer.warmup_epochs={warmup_epochs}", warmup_steps),
  ):
    if steps >= _STEP_LIMIT:
      raise errors.UserError(
        f"{setting} makes {steps:.3g} steps, but must make fewer than 2**31."
      )
  return Plan(
    num_examples=num_examples,
    batch_size=train.batch_size,
    microbatches=train.microbatches,
    norm_groups=_norm_groups(config.model),
    total_steps=total_steps,
    warmup_steps=warmup_steps,
    peak_learning_rate=schedules.peak_learning_rate(
      config.optimizer.base_learning_rate, train.batch_size
    ),
    tau=tau,
  )


def _norm_groups(model: schema.ModelConfig) -> int:
  """Returns `Plan.norm_groups`."""
  parts = (model.encoder, model.projector, model.predictor)
  if all(part.norm != "batch" for part in parts):
    return 0
  of_group = model.batch_norm.group_size
  return jax.device_count() // of_group if of_group else 1


def describe(plan: Plan, ema_schedule: str) -> list[str]:
  """Returns lines that describe the plan, with a note on each doubtful number."""
  epochs = plan.total_steps / plan.steps_per_epoch
  norm = "No batch norm"
  if plan.norm_groups:
    norm = f"Batch norm over {plan.group_size} images"
  lines = [
    f"{plan.total_steps:,} steps of {plan.batch_size} images, {epochs:.3g}"
    f" epochs; learning rate to {plan.peak_learning_rate:.4g} in"
    f" {plan.warmup_steps:,} steps of warm-up.",
    f"tau {ema_schedule} from {plan.tau:.6g}: the target forgets half in"
    f" {plan.half_life:,.0f} images. {norm}, in {plan.microbatches} micro-batches a"
    " step.",
  ]
  if plan.warmup_steps >= plan.total_steps:
    lines.append(
      f"Note: the warm-up of {plan.warmup_steps:,} steps is longer than the run,"
      " so the learning rate never reaches its peak; lower"
      " optimizer.warmup_epochs."
    )
  if plan.norm_groups and plan.group_size < _SMALL_GROUP:
    known = ", ".join(f"{v} at {k}" for k, v in _TOP1_BY_GROUP.items())
    grouped = " or model.batch_norm.group_size" if plan.norm_groups > 1 else ""
    lines.append(
      f"Note: batch norm sees only {plan.group_size} images at once. The paper's"
      f" top-1 for each number of images was {known}: raise train.batch_size{grouped}"
      " or lower train.microbatches."
    )
  return lines
