"""The modes: one function of a run for each value of --mode.

A mode imports `reporting` where it draws: matplotlib would delay the first step.
"""

from collections.abc import Callable, Mapping

from byol_jax import errors, program
from byol_jax.cli import messages
from byol_jax.cli.flags import Options
from byol_jax.config import schema
from byol_jax.evaluation import embed, protocols, results, runner
from byol_jax.interop import (
  encoder_file,
  exports,
  reference_run,
)
from byol_jax.learning.learner import TrainState
from byol_jax.runtime import claim, console, files, processes
from byol_jax.training import (
  arrays,
  outputs,
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
  state, was_finished = program.pretrain(
    run, console.say, messages.describe_start
  )
  if was_finished and processes.broadcast_from_primary(
    lambda: results.is_complete(run, selection.names)
  ):
    console.say("This run was already finished.")
    for name, result in results.read(run.workdir).items():
      messages.show_result(name, result)
  else:
    runner.evaluate(run, state, messages.show_result, selection=selection)
  if processes.is_primary():
    from byol_jax.reporting import report

    console.say(f"Written: {report.write(run)}")
    found = results.read(run.workdir)
    values = {name: result["value"] for name, result in found.items()}
    outputs.conclude(run, int(state.step), values, report.figures(run.workdir))


def _evaluate(run: Run, options: Options) -> None:
  """Evaluates a checkpoint, an encoder file, or each new checkpoint."""
  if not options.watch:
    state = _load_state(run, options)
    runner.evaluate(run, state, messages.show_result, options.encoder)
    return
  # A mistake shows before the first checkpoint.
  selection = processes.primary_first(lambda: protocols.selected(run))
  console.say(f"Waiting for checkpoints in {run.workdir}; Ctrl-C ends it.")
  for state in restore.watch(run):
    console.say(f"Step {int(state.step)}:")
    runner.evaluate(run, state, messages.show_result, selection=selection)
    run.config.evaluation.baselines = False  # They do not change.


def _embed(run: Run, options: Options) -> None:
  """Writes the features of each image of a split, or of all."""
  state = _load_state(run, options)
  written = embed.write(run, state, options.split, options.file_format)
  messages.describe_embeddings(written)


def _export(run: Run, options: Options) -> None:
  """Writes the online encoder in some formats."""
  exports.check(run.config)
  state = restore.restore(run, options.step)
  if processes.is_primary():
    for path in exports.write(run, state, console.say):
      console.say(f"Written: {path}")


def _arrays(run: Run, options: Options) -> None:
  """Writes all images to a file that needs neither tfds nor TensorFlow."""
  del options
  messages.describe_data(run)
  if processes.is_primary():
    path, size = arrays.write(run)
    console.say(f"Written: {path}, {size / 1e6:,.0f} MB")


def _report(run: Run, options: Options) -> None:
  """Writes the page of a run, or the table and the page of several runs."""
  if not processes.is_primary():
    return
  from byol_jax.reporting import report, sweep, tables

  folder = run.workdir
  if sweep.is_sweep(folder):
    write, workdirs = sweep.write, sweep.find_workdirs(folder)
  else:
    write, workdirs = tables.write, tables.find_workdirs(folder)
  others = [files.to_path(name) for name in options.compare]
  if not workdirs:
    program.show_health(run, console.say)
    console.say(f"Written: {report.write(run, others)}")
    return
  page = report.write_together(folder, [*workdirs, *others])
  console.say(f"Written: {page}")
  if not tables.with_results(workdirs):
    console.say("No run has results yet; see log.txt in its workdir.")
    return
  path = write(folder)
  console.say(path.read_text())
  console.say(f"Written: {path}")


def _views(run: Run, options: Options) -> None:
  """Draws the views of the first step."""
  del options
  messages.describe_data(run)
  if processes.is_primary():
    from byol_jax.reporting import views

    console.say(f"Drawn: {views.write(run)}")


MODES: Mapping[str, Callable[[Run, Options], None]] = {
  "pretrain": _pretrain,
  "evaluate": _evaluate,
  "embed": _embed,
  "export": _export,
  "arrays": _arrays,
  "report": _report,
  "views": _views,
}


def _import(config: schema.Config, options: Options) -> None:
  """Makes a run of a checkpoint that the reference wrote."""
  processes.broadcast_from_primary(
    lambda: reference_run.write(
      config, options.import_from, options.workdir, console.say
    )
  )


# The modes that read no images, and so have no run yet.
MODES_WITHOUT_DATA: Mapping[str, Callable[[schema.Config, Options], None]] = {
  "import": _import,
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
  height, width = schema.image_shape(run.config.data)
  console.say(
    f"{options.encoder}: {run.config.model.encoder.name}, step {state.step}, for"
    f" images of {height}x{width} pixels."
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
