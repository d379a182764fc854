"""What the command says of a run, its data, its network and its results."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax

from byol_jax.config import schema
from byol_jax.data import source as source_lib
from byol_jax.data.source import Source
from byol_jax.evaluation import embed, protocols, splits
from byol_jax.models import describe
from byol_jax.runtime import console, processes
from byol_jax.training import build, plan, saved_settings, workdir_files
from byol_jax.training.runs import Run


def describe_data(run: Run) -> None:
  """Prints the images that the run trains on, and what was made of a folder."""
  data = run.config.data
  height, width = schema.image_shape(data)
  part = ""
  if data.split or data.fraction < 1:
    total = sum(run.source.split_sizes().values())
    part = f" of {total}, {run.source.dataset.pretrain},"
  console.say(
    f"{run.plan.num_examples} images{part} to pretrain on,"
    f" {run.source.num_classes or 'no'} classes; views of"
    f" {height}x{width}x{data.channels}; stem"
    f" {run.config.model.encoder.stem}; mean {_numbers(data.mean)}, std"
    f" {_numbers(data.std)}."
  )
  if data.channels not in (1, 3):
    console.say(
      f"Note: {data.channels} channels have no colours: views change neither their"
      " saturation nor hue, and never become grey."
    )
  for note in run.source.notes:
    console.say(note)
  if run.source.broken and processes.is_primary():
    path = workdir_files.write_broken_files(run.workdir, run.source.broken)
    console.say(f"Note: {_num_broken(run.source)} cannot be used; see {path}.")


def describe_splits(run: Run, selection: protocols.Selection) -> None:
  """Prints what each split is used for."""
  console.say(splits.describe(run, selection.source, selection.splits))


def describe_embeddings(written: embed.Embeddings) -> None:
  """Prints where embeddings were written, and of how many images."""
  source = written.source
  everything = source.num_examples(source_lib.all_splits(source))
  console.say(
    f"Written: {written.path} with {written.num_images} of {everything} images"
    f" ({written.split})."
  )
  if source.broken:
    path, reason = source.broken[0]
    console.say(
      f"Note: {_num_broken(source)} cannot be used, such as {path} ({reason})."
    )


def warn_of_other_images(run: Run) -> None:
  """Prints a note if the images are not those that the run was trained on."""
  if processes.is_primary() and saved_settings.has_other_images(
    run.workdir, run.source.fingerprint
  ):
    console.say(
      f"Note: {run.workdir} was trained on other images than"
      f" data.root={run.config.data.root} has now."
    )


def describe_network(run: Run) -> None:
  """Prints shapes and parameters, one line per part of the network."""
  config = run.config
  data = config.data
  shape = (config.train.batch_size, *schema.image_shape(data), data.channels)
  network = build.build_network(config, run.num_classes)
  for row in describe.describe(network, shape):
    console.say("  {:12}{:>18} -> {:12}{:>14,} parameters".format(*row))


def describe_plan(run: Run) -> None:
  """Prints the plan of the run and the devices that it runs on."""
  for line in plan.describe(run.plan, run.config.ema.schedule):
    console.say(line)
  where = (
    f" in {jax.process_count()} processes"
    if processes.is_multiprocess()
    else ""
  )
  console.say(
    f"{jax.device_count()} {jax.devices()[0].platform} devices{where}."
  )


def describe_start(run: Run, step: int) -> None:
  """Prints where training goes on, and what a longer run changes there."""
  total = run.plan.total_steps
  if run.extends is not None:
    before, after = (
      [
        float(schedule(step))
        for schedule in build.make_schedules(run.config, p)
      ]
      for p in (run.plan._replace(total_steps=run.extends), run.plan)
    )
    console.say(
      f"Training on from step {step}, as the run of {run.extends} steps now has"
      f" {total}: its schedules give a learning rate of {after[0]:.4g} there"
      f" instead of {before[0]:.4g}, and a tau of {after[1]:.6g} instead of"
      f" {before[1]:.6g}."
    )
  elif step:
    console.say(f"Resuming at step {step} of {total}.")


def show_result(name: str, result: Mapping[str, Any]) -> None:
  """Prints a metric, its 95% interval and the paper's value."""
  interval = (
    "  {} to {}".format(*result["interval"]) if "interval" in result else ""
  )
  paper = f"  (paper: {result['paper']})" if "paper" in result else ""
  console.say(f"  {name:44}{result['value']:.4f}{interval}{paper}")


def _num_broken(source: Source) -> str:
  count = len(source.broken)
  return f"{count} file{'' if count == 1 else 's'}"


def _numbers(values: Sequence[float]) -> str:
  return " ".join(f"{value:.3f}" for value in values)
