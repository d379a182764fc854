"""The pages of docs/ build as a site, without warnings and dead links."""

import os
import subprocess
import sys

import pytest

from byol_jax.config import convert, schema
from tests import command_line

pytest.importorskip("mkdocs", reason="the extra docs is not installed")


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_shows_every_key(tmp_path):
  done = subprocess.run(
    [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", tmp_path],
    cwd=command_line.ROOT,
    # The page of the API is made of this checkout's docstrings.
    env=os.environ | {"PYTHONPATH": str(command_line.ROOT)},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  page = (tmp_path / "configuration" / "index.html").read_text()
  for key in convert.key_types(schema.Config):
    assert f"<code>{key}</code>" in page, key
  page = (tmp_path / "api" / "index.html").read_text()
  for name in ("open_run", "Encoder.encode", "byol_loss", "COLOUR_OPS"):
    assert name in page
