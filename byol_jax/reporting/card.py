"""The card of a run, `card.md`: what it is, what it cost and how to use it."""

import pathlib

from byol_jax.config import schema
from byol_jax.reporting import style, summary, tables
from byol_jax.reporting.facts import Facts
from byol_jax.runtime import files
from byol_jax.training import runs

FILE = "card.md"


def write(run: runs.Run, facts: Facts) -> pathlib.Path:
  """Writes `card.md` of a run, finished or not, and returns its path.

  Raises:
    UserError: the file cannot be written.
  """
  path = run.workdir / FILE
  with files.atomic_write(path, style.REMEDY) as file:
    file.write_text(_text(run, facts))
  return path


def _text(run: runs.Run, facts: Facts) -> str:
  config, plan = run.config, run.plan
  height, width = schema.image_shape(config.data)
  classes = (
    f"{run.source.num_classes} classes"
    if run.source.num_classes
    else ("no labels")
  )
  encoder = config.model.encoder
  header, rows = summary.metrics(facts)
  epochs = plan.total_steps / plan.steps_per_epoch
  expectations = summary.not_obtained(facts)
  parts = [
    f"# {encoder.name} by BYOL on {run.source.dataset.tfds_name}",
    summary.progress(facts, plan.total_steps),
    "## Data",
    f"{plan.num_examples:,} images of {run.source.dataset.pretrain}, {classes}."
    f" Views of {height} x {width} x"
    f" {config.data.channels}. Labels train nothing but the online classifier.",
    "## Budget",
    f"{plan.total_steps:,} steps of {plan.batch_size} images, {epochs:.3g} epochs,"
    f" in {config.train.precision}; seed {config.seed}.",
    f"Cost: {summary.cost(facts)}.",
    "## Metrics",
    "\n".join(tables.markdown(header, rows)) if rows else "No results yet.",
    summary.about_metrics(facts),
    f"Expected, but not evaluated: {', '.join(expectations)}."
    if expectations
    else "",
    "## Load the encoder",
    "Export it by the command below with `--mode=export`, then:",
    "    from byol_jax.interop import encoder_file\n\n"
    f'    encoder = encoder_file.load("{run.workdir}/encoder/encoder.safetensors")\n'
    "    vectors = encoder.encode(images)  #"
    f" [B, {height}, {width},"
    f" {config.data.channels}] in [0, 1]",
    "## Made by",
    "\n".join(
      f"- {name}: {value}" for name, value in summary.provenance(facts)
    ),
    "## Settings that are not the default",
    "\n".join(
      tables.markdown(["key", "value", "default"], summary.settings(facts))
    ),
  ]
  return "\n\n".join(part for part in parts if part) + "\n"
