"""Where the program keeps compiled programs."""

import jax
import pytest

from byol_jax import program


@pytest.fixture
def cache():
  """Returns JAX's folder, and restores it after the test."""
  before = jax.config.jax_compilation_cache_dir
  yield lambda: jax.config.jax_compilation_cache_dir
  jax.config.update("jax_compilation_cache_dir", before)


def test_compiled_programs_are_kept_in_a_new_folder(cache, tmp_path, capsys):
  folder = str(tmp_path / "new" / "cache")
  program._keep_compiled_programs(folder, print)
  assert cache() == folder
  assert capsys.readouterr().out == ""


def test_a_folder_that_cannot_be_written_is_one_note(cache, tmp_path, capsys):
  before = cache()
  (tmp_path / "file").touch()
  program._keep_compiled_programs(str(tmp_path / "file" / "cache"), print)
  program._keep_compiled_programs("~no_such_user/cache", print)
  assert cache() == before
  blocked, homeless = capsys.readouterr().out.splitlines()
  assert str(tmp_path / "file" / "cache") in blocked
  assert "Not a directory" in blocked
  assert "home directory" in homeless
