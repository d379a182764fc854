"""Workdirs in buckets, on servers of this machine that stand for S3 and Google's."""

import pathlib

import numpy as np
import pytest

from byol_jax import errors
from byol_jax.runtime import buckets, checkpoints, claim, files, writers
from tests import buckets as servers


@pytest.fixture(scope="module", params=["gs", "s3"])
def scheme(request):
  with servers.served(request.param) as environment, pytest.MonkeyPatch.context() as patch:
    for name, value in environment.items():
      patch.setenv(name, value)
    buckets._filesystem.cache_clear()
    yield request.param
  buckets._filesystem.cache_clear()


@pytest.fixture
def workdir(scheme, request):
  return files.to_path(f"{scheme}://bucket/{request.node.originalname}")


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


def test_a_new_file_is_made_by_one_program_only(workdir):
  files.create(workdir / "claim", "first")
  with pytest.raises(FileExistsError):
    files.create(workdir / "claim", "second")
  assert (workdir / "claim").read_text() == "first"
  assert not files.remove_exactly(workdir / "claim", b"second")
  assert files.remove_exactly(workdir / "claim", b"first")
  assert not (workdir / "claim").exists()
