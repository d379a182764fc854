"""Workdirs in buckets, on servers of this machine that stand for S3 and Google's."""

import http.server
import importlib
import json
import os
import pathlib
import signal
import sys
import tempfile
import threading
import time

import numpy as np
import pytest
import safetensors.numpy

from byol_jax import errors
from byol_jax.cli import flags
from byol_jax.config import schema
from byol_jax.evaluation import embed, protocols, runner
from byol_jax.interop import encoder_file
from byol_jax.reporting import report
from byol_jax.runtime import (
  buckets,
  checkpoint_storage,
  checkpoints,
  claim,
  files,
  growing,
  writers,
)
from byol_jax.training import arrays
from tests import buckets as servers
from tests import command_line, eval_cases

SCHEMES = ("gs", "s3")


@pytest.fixture(scope="module", params=SCHEMES)
def scheme(request):
  """A scheme whose server runs while the tests of the module need it."""
  with (
    servers.served(request.param) as environment,
    pytest.MonkeyPatch.context() as patch,
  ):
    for name, value in environment.items():
      patch.setenv(name, value)
    buckets._filesystem.cache_clear()
    yield request.param


@pytest.fixture
def workdir(scheme, request):
  return files.to_path(f"{scheme}://bucket/{request.node.originalname}")


@pytest.fixture
def refusing(monkeypatch):
  """Returns a function: every server of a scheme refuses with this status."""

  def refuse(status: int) -> None:
    class Handler(http.server.BaseHTTPRequestHandler):
      def answer(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

      do_GET = do_HEAD = do_POST = do_PUT = answer

      def log_message(self, *unused):
        pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name in SCHEMES:
      variables = servers.environment(name, server.server_address[1])
      for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    # The libraries keep a connection for each set of options.
    monkeypatch.setattr(buckets, "_filesystem", new_filesystem)

  return refuse


def new_filesystem(scheme):
  import fsspec

  return fsspec.filesystem(scheme, skip_instance_cache=True)


def leaves_of(step: int) -> dict:
  return {"w": np.arange(1000.0) + step, "step": np.int32(step)}


def save(folder, *steps: int, **kwargs) -> None:
  with checkpoints.Checkpoints(folder, **{"keep": 3} | kwargs) as saved:
    for step in steps:
      saved.save(step, leaves_of(step))


def restore(folder, step=None):
  with checkpoints.Checkpoints(folder, keep=3) as saved:
    return saved.restore(leaves_of(0), step)


def test_a_path_reads_and_writes_as_those_of_pathlib(workdir):
  path = workdir / "a" / "results.json"
  assert str(path) == f"{workdir}/a/results.json"
  assert not path.exists()
  assert not workdir.exists()
  path.write_text("{}")
  assert path.exists()
  assert workdir.exists()
  assert workdir.is_dir()
  assert not path.is_dir()
  (workdir / "b").write_bytes(b"\xff")
  assert [*workdir.glob("*/results.json")] == [path]
  assert {p.name for p in workdir.glob("*")} == {"a", "b"}
  assert (workdir / "b").read_text(errors="replace") == "\ufffd"
  (workdir / "b").unlink()
  (workdir / "b").unlink(missing_ok=True)
  assert path.parent.parent == workdir
  assert files.to_path(str(path)) == path
  with pytest.raises(FileNotFoundError):
    (workdir / "b").read_bytes()


def test_an_object_is_replaced_at_once_or_not_at_all(workdir):
  path = workdir / "results.json"
  for text in ("old", "new"):
    with files.atomic_write(path, "") as file:
      file.write_text(text)
    assert path.read_text() == text

  def fail():
    with files.atomic_write(path, "") as file:
      file.write_text("half")
      raise RuntimeError

  with pytest.raises(RuntimeError):
    fail()
  assert path.read_text() == "new"
  assert [*workdir.glob("*")] == [path]  # No temporary objects.
  files.set_aside(path, "it is new", "whole")
  assert path.read_text() == "whole"
  assert (workdir / "results.json.damaged").read_text() == "new"


def test_an_object_is_made_by_one_program_only(workdir):
  path = workdir / "claim"
  files.create(path, "first")
  with pytest.raises(FileExistsError):
    files.create(path, "second")
  assert path.read_text() == "first"
  assert not files.remove_exactly(path, b"second")
  assert files.remove_exactly(path, b"first")
  assert not path.exists()


def test_the_claim_keeps_another_program_out(workdir, monkeypatch):
  said = []
  with claim.Claim(workdir, said.append):
    with (
      pytest.raises(errors.UserError, match="in use by process"),
      claim.Claim(workdir, said.append),
    ):
      pass
    # A sign of life changes the time by which another host judges.
    _, before = files.read_with_time(workdir / claim.FILE)
    time.sleep(1.1)  # S3 counts whole seconds.
    files.touch(workdir / claim.FILE)
    assert files.read_with_time(workdir / claim.FILE)[1] > before
    assert 0 <= files.clock(workdir) - before < 60
  assert not workdir.exists()

  # Another host that gave no sign of life loses its claim.
  other = claim._this_process()._replace(machine="other", token="other")
  files.create(workdir / claim.FILE, json.dumps(other._asdict()))
  monkeypatch.setattr(claim, "_DEAD_AFTER_SECONDS", 1.0)
  with claim.Claim(workdir, said.append):
    pass
  assert "has died" in said[-1]


def test_checkpoints_are_complete_in_the_bucket_and_kept_as_on_a_disk(workdir):
  folder = workdir / "checkpoints"
  save(folder, 1, 2, 3, 4, keep=2, keep_every=3)
  assert sorted(checkpoint_storage.steps(folder)) == [3, 4]
  save(folder, 5, 6, keep=2, keep_every=3)
  assert sorted(checkpoint_storage.steps(folder)) == [3, 5, 6]
  np.testing.assert_equal(restore(folder), leaves_of(6))
  np.testing.assert_equal(restore(folder, 3), leaves_of(3))


def test_what_a_kill_left_of_a_checkpoint_is_replaced(workdir):
  folder = workdir / "checkpoints"
  save(folder, 1)
  for name in ("2/default/d/rest", "9/default/d/rest"):
    (folder / name).write_bytes(b"half")
  assert checkpoint_storage.steps(folder) == [1]
  np.testing.assert_equal(restore(folder), leaves_of(1))
  save(folder, 2)
  np.testing.assert_equal(restore(folder), leaves_of(2))
  assert {path.name for path in folder.glob("*")} == {"1", "2"}
  assert not (folder / "2/default/d/rest").exists()


def test_checkpoints_of_a_program_that_took_over_are_left_alone(workdir):
  folder = workdir / "checkpoints"
  save(folder, 1)
  with checkpoints.Checkpoints(folder, keep=1) as frozen:
    save(folder, 2, 3)
    frozen.save(2, leaves_of(2))
  assert sorted(checkpoint_storage.steps(folder)) == [2, 3]


def test_a_damaged_checkpoint_is_put_aside(workdir):
  folder = workdir / "checkpoints"
  save(folder, 1, 2)
  largest = max((folder / "2").find(), key=lambda path: len(path.read_bytes()))
  largest.write_bytes(largest.read_bytes()[::-1])
  with checkpoints.Checkpoints(folder, keep=3) as saved:
    np.testing.assert_equal(saved.restore(leaves_of(0)), leaves_of(1))
    saved.save(2, leaves_of(2))
  np.testing.assert_equal(restore(folder), leaves_of(2))
  assert {path.name for path in folder.glob("*")} == {"1", "2", "damaged-2"}


def test_a_bucket_that_cannot_be_reached_damages_no_checkpoint(
  workdir, monkeypatch
):
  folder = workdir / "checkpoints"
  save(folder, 1, 2)

  def failing(method):
    def fail(path, *args, **kwargs):
      if "default" in path.parts:
        raise buckets.BucketError(path, "no network")
      method(path, *args, **kwargs)

    return fail

  with checkpoints.Checkpoints(folder, keep=3) as saved:
    with monkeypatch.context() as patch:
      path = buckets.BucketPath
      patch.setattr(path, "download", failing(path.download))
      with pytest.raises(
        errors.UserError, match=r"no network; .* run the same"
      ):
        saved.restore(leaves_of(0))
    with monkeypatch.context() as patch:
      patch.setattr(path, "upload", failing(path.upload))
      saved.save(3, leaves_of(3))
      with pytest.raises(errors.UserError, match=r"^\S+/3/\S+ cannot .*no net"):
        saved.latest_step()
      saved._storage._stored = None
  assert sorted(checkpoint_storage.steps(folder)) == [1, 2]
  # Of what is removed, nothing is left that looks whole.
  monkeypatch.setattr(path, "unlink", failing(path.unlink))
  with pytest.raises(errors.UserError, match="no network"):
    save(folder, 3, keep=2)
  assert sorted(checkpoint_storage.steps(folder)) == [2, 3]


def test_logs_are_in_the_bucket_when_they_are_flushed(workdir, monkeypatch):
  path = workdir / "metrics.jsonl"
  log = writers.JsonlWriter(path, 0)
  board = writers.TensorBoardWriter(workdir / "tensorboard", 0)
  log.write(1, {"train/loss": 1.0})
  assert writers.read_jsonl(path) == []
  log.flush()
  board.flush()
  assert [row["step"] for row in writers.read_jsonl(path)] == [1]
  monkeypatch.setattr(growing, "_UPLOAD_SECONDS", 0.0)
  log.write(2, {"train/loss": 1.0})
  assert [row["step"] for row in writers.read_jsonl(path)] == [1, 2]
  log.close()
  board.close()
  # A run that resumes at step 1 drops what came after it.
  log = writers.JsonlWriter(path, 1)
  log.write(2, {"train/loss": 3.0})
  log.close()
  assert [row["train/loss"] for row in writers.read_jsonl(path)] == [1.0, 3.0]
  (events,) = (workdir / "tensorboard").glob("*")
  assert events.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["s3"], indirect=True)
def test_every_mode_writes_to_a_bucket_what_it_writes_to_a_disk(
  workdir, tmp_path
):
  cfg = eval_cases.small_config(tmp_path)
  cfg.evaluation.protocols = ("knn", "retrieval")
  cfg.evaluation.baselines = False
  on_disk = eval_cases.prepare(tmp_path, cfg)
  state = eval_cases.settled_state(on_disk)
  for run in (on_disk, on_disk._replace(workdir=workdir)):
    encoder = run.workdir / "encoder" / "encoder.safetensors"
    encoder_file.write(encoder, run.config, state)
    loaded = encoder_file.restore(str(encoder), run.config, run.num_classes)
    selection = protocols.selected(run)
    runner.evaluate(run, loaded, lambda *unused: None, selection=selection)
    embed.write(run, state, "test")
    arrays.write(run)
    report.write(run)

  copy = tmp_path / "copy"
  found, wanted = (
    {str(path.relative_to(folder)): path for path in paths}
    for folder, paths in (
      (copy, downloaded(workdir, copy)),
      (on_disk.workdir, on_disk.workdir.rglob("*.*")),
    )
  )
  wanted = {k: v for k, v in wanted.items() if not k.startswith("features/")}
  assert found.keys() == wanted.keys()
  assert "figures/neighbours.png" in found
  for name, path in found.items():
    if name.endswith((".npz", ".safetensors")):  # Their bytes differ.
      np.testing.assert_equal(*map(arrays_of, (path, wanted[name])))
    else:  # Pages and cards name the workdir.
      bucket, disk = (
        file.read_bytes().replace(str(folder).encode(), b"WORKDIR")
        for file, folder in (
          (path, workdir),
          (wanted[name], on_disk.workdir),
        )
      )
      assert bucket == disk, name


def arrays_of(path: pathlib.Path) -> dict:
  """Returns the arrays of a file by name."""
  if path.suffix == ".npz":
    return dict(np.load(path))
  return safetensors.numpy.load_file(path)


def downloaded(workdir, target: pathlib.Path) -> list[pathlib.Path]:
  """Copies all objects of a workdir to a folder; returns the copies."""
  copies = []
  for path in workdir.find():
    copies.append(target / path.relative_to(workdir))
    copies[-1].parent.mkdir(parents=True, exist_ok=True)
    path.download(copies[-1])
  return copies


def test_what_killed_programs_left_in_the_temporary_folder_is_removed(
  workdir, tmp_path, monkeypatch
):
  monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
  ours = files.temporary_folder()
  no_pid = str(2**22 + 1)  # Linux gives none above 2**22.
  died = pathlib.Path(ours.name.replace(f".{os.getpid()}.", f".{no_pid}."))
  died.mkdir()
  (died / "features").write_text("large")
  (tmp_path / "other").mkdir()
  with claim.Claim(workdir, print):
    pass
  assert {*tmp_path.iterdir()} == {
    pathlib.Path(ours.name),
    tmp_path / "other",
  }


def test_a_missing_bucket_is_named_in_one_line(scheme):
  path = files.to_path(f"{scheme}://missing/run")
  with (
    pytest.raises(
      errors.UserError, match=r"^\w+://missing/run/\S+ .*bucket does not exist"
    ),
    claim.Claim(path, print),
  ):
    pass


@pytest.mark.parametrize("name", SCHEMES)
def test_a_bucket_that_forbids_is_named_in_one_line(name, refusing):
  refusing(403)
  with pytest.raises(
    errors.UserError, match="check its name, your cred"
  ) as found:
    flags._checked_workdir(files.to_path(f"{name}://bucket/run"))
  assert "\n" not in str(found.value)


@pytest.mark.parametrize("name", SCHEMES)
def test_a_missing_library_is_named_with_its_extra(name, monkeypatch):
  registered = importlib.import_module("fsspec.registry")._registry
  for module in ("gcsfs", "s3fs"):
    monkeypatch.setitem(sys.modules, module, None)
  for loaded in ("gs", "gcs", "s3"):
    monkeypatch.delitem(registered, loaded, raising=False)
  monkeypatch.setattr(buckets, "_filesystem", buckets._filesystem.__wrapped__)
  extra = {"gs": "gcs", "s3": "s3"}[name]
  with pytest.raises(errors.UserError, match=rf"byol_jax\[{extra}\]"):
    files.to_path(f"{name}://bucket/run").exists()


def test_an_unknown_scheme_lists_the_known_ones():
  with pytest.raises(errors.UserError, match=r"'azure://'.*gs://, s3://"):
    files.to_path("azure://bucket/run")
  with pytest.raises(errors.UserError, match="names no bucket"):
    files.to_path("gs://")
  assert files.to_path("gs:/run") == pathlib.Path("gs:/run")
  assert type(files.to_path("runs/x")) is type(pathlib.Path("runs"))


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["gs"], indirect=True)
def test_a_killed_run_goes_on_on_another_machine(workdir, tmp_path, digits_dir):
  """Another home and temporary folder: nothing but the bucket is left of it."""
  # As in the home folder of the user.
  cache = pathlib.Path(schema.Config().train.compilation_cache).expanduser()
  arguments = (
    f"--config.train.compilation_cache={cache}",
    "--config.evaluation.protocols=('knn',)",
    "--config.evaluation.baselines=False",
  )
  shape = {"steps": 40, "checkpoint_every": 3}

  def started(name: str):
    for folder in ("home", "tmp"):
      (tmp_path / name / folder).mkdir(parents=True)
    return command_line.start(
      *command_line.pretraining(workdir, **shape),
      *arguments,
      data_dir=digits_dir,
      HOME=str(tmp_path / name / "home"),
      TMPDIR=str(tmp_path / name / "tmp"),
    )

  first = started("first")
  while len(checkpoint_storage.steps(workdir / "checkpoints")) < 3:
    assert first.poll() is None, command_line.ended(first).stderr
    time.sleep(0.05)
  with (
    pytest.raises(errors.UserError, match="in use by process"),
    claim.Claim(workdir, print),
  ):
    pass
  first.send_signal(signal.SIGKILL)
  command_line.ended(first)
  second = command_line.ended(started("second"))
  assert second.returncode == 0, second.stderr
  assert "Resuming at step" in second.stdout
  left = (tmp_path / "second" / "tmp").iterdir()
  assert not [x for x in left if x.name.startswith(files.temporary_prefix())]

  whole = tmp_path / "whole"
  done = command_line.run(
    *command_line.pretraining(whole, **shape), *arguments, data_dir=digits_dir
  )
  assert done.returncode == 0, done.stderr
  copy = tmp_path / "copy"
  downloaded(workdir, copy)
  np.testing.assert_equal(
    command_line.saved_leaves(copy, 40), command_line.saved_leaves(whole, 40)
  )
  ours, theirs = (
    [(row["step"], row["train/loss"]) for row in writers.read_jsonl(path)]
    for path in (copy / "metrics.jsonl", whole / "metrics.jsonl")
  )
  assert ours == theirs
  results = [
    json.loads((folder / "results.json").read_text())
    for folder in (copy, whole)
  ]
  assert results[0] == results[1]
  assert (copy / "figures" / "curves.png").stat().st_size
  assert not (copy / claim.FILE).exists()
