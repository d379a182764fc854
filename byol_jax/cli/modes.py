"""The modes: one function of a run for each value of --mode.

A mode imports `reporting` where it draws: matplotlib would delay the first step.
"""

import functools
from collections.abc import Callable, Mapping

from byol_jax import errors
from byol_jax.cli import messages
from byol_jax.cli.flags import Options
from byol_jax.evaluation import embed, monitor, protocols, results, runner
from byol_jax.interop import encoder_file, warm_start
from byol_jax.learning import verdict
from byol_jax.learning.learner import TrainState
from byol_jax.runtime import claim, processes
from byol_jax.training import (
  arrays,
  health,
  loop,
  restore,
  saved_settings,
  workdir_files,
)
from byol_jax.training.runs import Run


def _pretrain(run: Run, options: Options) -> None:
  """Trains and evaluates a run, unless that is done, and draws its pictures."""
  del options
  # Mistakes show before training, not after it.
  results.check_same_encoder(run)
  selection = processes.primary_first(lambda: protocols.selected(run))
  results.check_same_folder(run, selection.source.dataset.tfds_name)
  messages.describe_data(run)
  messages.describe_splits(run, selection)
  messages.describe_network(run)
  messages.describe_plan(run)
  start = loop.untrained
  if run.config.model.encoder.init_from:
    start = functools.partial(warm_start.start, tell=messages.say)
  watcher = monitor.Monitor(run) if run.config.evaluation.every_epochs else None
  state, was_finished = loop.pretrain(
    run, start, messages.describe_start, messages.say, watcher
  )
  _show_health(run)
  if was_finished and processes.broadcast_from_primary(
    lambda: results.is_complete(run, selection.names)
  ):
    messages.say("This run was already finished.")
    for name, result in results.read(run.workdir).items():
      messages.show_result(name, result)
  else:
    runner.evaluate(run, state, messages.show_result, selection=selection)
  if processes.is_primary():
    from byol_jax.reporting import report

    report.write(run)


def _show_health(run: Run) -> None:
  """Prints whether training was healthy, and adds it to `results.json`."""
  if processes.is_primary() and (found := health.of_run(run)):
    messages.say(f"Health: {verdict.describe(found)}")
    results.add_health(run.workdir, verdict.to_json(found))


def _evaluate(run: Run, options: Options) -> None:
  """Evaluates a checkpoint, an encoder file, or each new checkpoint."""
  if not options.watch:
    state = _load_state(run, options)
    runner.evaluate(run, state, messages.show_result, options.encoder)
    return
  # A mistake shows before the first checkpoint.
  selection = processes.primary_first(lambda: protocols.selected(run))
  messages.say(f"Waiting for checkpoints in {run.workdir}; Ctrl-C ends it.")
  for state in restore.watch(run):
    messages.say(f"Step {int(state.step)}:")
    runner.evaluate(run, state, messages.show_result, selection=selection)
    run.config.evaluation.baselines = False  # They do not change.


def _embed(run: Run, options: Options) -> None:
  """Writes the features of each image of a split, or of all."""
  written = embed.write(run, _load_state(run, options), options.split)
  messages.describe_embeddings(written)


def _export(run: Run, options: Options) -> None:
  """Writes the online encoder to a file."""
  state = restore.restore(run, options.step)
  path = run.workdir / "encoder" / "encoder.safetensors"
  if processes.is_primary():
    encoder_file.write(path, run.config, state)
  messages.say(f"Written: {path}")


def _arrays(run: Run, options: Options) -> None:
  """Writes all images to a file that needs neither tfds nor TensorFlow."""
  del options
  messages.describe_data(run)
  if processes.is_primary():
    path, size = arrays.write(run)
    messages.say(f"Written: {path}, {size / 1e6:,.0f} MB")


def _report(run: Run, options: Options) -> None:
  """Draws a run or a sweep, or writes the table of several seeds."""
  del options
  if not processes.is_primary():
    return
  from byol_jax.reporting import report, sweep, tables

  if sweep.is_sweep(run.workdir):
    path = sweep.write(run.workdir)
    messages.say(path.read_text())
    messages.say(f"Written: {path}, and a picture in the same folder")
  elif tables.find_workdirs(run.workdir):
    path = tables.write(run.workdir)
    messages.say(path.read_text())
    messages.say(f"Written: {path}")
  else:
    report.write(run)
    _show_health(run)


def _views(run: Run, options: Options) -> None:
  """Draws the views of the first step."""
  del options
  messages.describe_data(run)
  if processes.is_primary():
    from byol_jax.reporting import views

    messages.say(f"Drawn: {views.write(run)}")


MODES: Mapping[str, Callable[[Run, Options], None]] = {
  "pretrain": _pretrain,
  "evaluate": _evaluate,
  "embed": _embed,
  "export": _export,
  "arrays": _arrays,
  "report": _report,
  "views": _views,
}


def _load_state(run: Run, options: Options) -> TrainState:
  """Returns the state of a checkpoint, or the encoder of a file."""
  if not options.encoder:
    messages.warn_of_other_images(run)
    return restore.restore(run, options.step)
  results.check_same_encoder(run, options.encoder)

  def read() -> TrainState:
    _check_holds_no_run(run, options.encoder)
    state = encoder_file.restore(options.encoder, run.config, run.num_classes)
    saved_settings.write(run.workdir, run.config, run.source.fingerprint)
    return state

  state = processes.broadcast_from_primary(read)
  messages.say(
    f"{options.encoder}: {run.config.model.encoder.name}, step {state.step}, for"
    f" images of {run.config.data.image_size} pixels."
  )
  return state


def _check_holds_no_run(run: Run, encoder: str) -> None:
  """Raises `UserError` if the results of a file would replace those of a run.

  A run that has begun may not have a checkpoint yet, but its claim.
  """
  is_claimed = (run.workdir / claim.FILE).exists()
  if is_claimed or workdir_files.checkpoint_steps(run.workdir):
    raise errors.UserError(
      f"{run.workdir} holds a run, whose results those of {encoder} would"
      " replace; choose another --workdir, or leave --encoder out to evaluate the"
      " run."
    )
