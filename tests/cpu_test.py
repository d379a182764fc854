"""XLA's flags and the restart with huge pages, without running either."""

import importlib.machinery
import os
import subprocess
import sys
import types

import pytest

from byol_jax.runtime import cpu
from tests import command_line

KNOWN = "xla_cpu_collective_timeout_seconds"


@pytest.fixture
def flags(monkeypatch):
  """Sets XLA_FLAGS for a test and returns what became of it."""
  monkeypatch.setenv("XLA_FLAGS", "")
  return lambda: os.environ["XLA_FLAGS"].split()


def test_a_flag_that_xla_knows_is_passed(flags):
  cpu.set_xla_flag(KNOWN, "7")
  cpu.choose_fast_convolutions()
  assert flags() == [f"--{KNOWN}=7", "--xla_cpu_experimental_ynn_fusion_type="]


@pytest.mark.parametrize("invented", ["xla_no_such_flag", KNOWN[:-1]])
def test_a_flag_that_xla_does_not_know_is_left_out(flags, invented):
  cpu.set_xla_flag(invented, "7")
  assert flags() == []


def test_a_flag_that_only_one_of_two_libraries_knows_is_left_out(
  flags, monkeypatch, tmp_path
):
  for package, content in {
    "one": b"\0xla_a\0xla_b\0",
    "two": b"xla_b\0",
  }.items():
    (tmp_path / package).mkdir()
    (tmp_path / package / "lib.so").write_bytes(content)
  monkeypatch.syspath_prepend(tmp_path)
  monkeypatch.setattr(
    cpu, "_XLA_LIBRARIES", {"one": "*.so*", "two": "*.so*", "absent": "*"}
  )
  cpu.set_xla_flag("xla_a", "1")
  cpu.set_xla_flag("xla_b", "1")
  assert flags() == ["--xla_b=1"]


def test_the_users_own_choice_of_a_flag_stays(flags, monkeypatch):
  monkeypatch.setenv("XLA_FLAGS", f"--{KNOWN}=5")
  cpu.raise_collective_timeout()
  assert flags() == [f"--{KNOWN}=5"]


@pytest.fixture
def restarts(monkeypatch, tmp_path):
  """The commands of restarts, where `python -m byol_jax.main` was started."""
  policy = tmp_path / "enabled"
  policy.write_text("always [madvise] never\n")
  monkeypatch.setattr(cpu, "_HUGE_PAGES_POLICY", policy)
  monkeypatch.setenv("GLIBC_TUNABLES", "")
  monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "byol_jax.main", "-x"])
  start_as(monkeypatch, "byol_jax.main")
  commands = []
  monkeypatch.setattr(os, "execv", lambda path, args: commands.append(args))
  return commands


def start_as(monkeypatch, module=None, script="program"):
  """Makes the running program look like `python -m MODULE` or SCRIPT."""
  main = types.ModuleType("__main__")
  main.__spec__ = module and importlib.machinery.ModuleSpec(module, None)
  monkeypatch.setitem(sys.modules, "__main__", main)
  monkeypatch.setattr(sys, "argv", [script])


def test_a_program_is_restarted_once_with_its_arguments(restarts):
  cpu.restart_with_huge_pages()
  cpu.restart_with_huge_pages()
  assert restarts == [[sys.executable, "-m", "byol_jax.main", "-x"]]
  assert os.environ["GLIBC_TUNABLES"] == "glibc.malloc.hugetlb=1"


def test_the_users_other_tunables_stay(restarts, monkeypatch):
  monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.check=1")
  cpu.restart_with_huge_pages()
  assert os.environ["GLIBC_TUNABLES"] == (
    "glibc.malloc.check=1:glibc.malloc.hugetlb=1"
  )


@pytest.mark.parametrize(
  ("module", "script", "is_ours"),
  [
    ("byol_jax.main", "main.py", True),
    ("benchmarks.update_step", "update_step.py", True),
    (None, "/usr/bin/byol_jax", True),
    (None, "notebook.py", False),
    ("pytest.__main__", "pytest", False),
  ],
)
def test_only_programs_of_this_project_are_restarted(
  restarts, monkeypatch, module, script, is_ours
):
  start_as(monkeypatch, module, script)
  cpu.restart_with_huge_pages()
  assert bool(restarts) == is_ours


def test_a_debugged_program_is_not_restarted(restarts):
  before = sys.gettrace()
  sys.settrace(lambda *_: None)
  try:
    cpu.restart_with_huge_pages()
  finally:
    sys.settrace(before)
  assert restarts == []


@pytest.mark.parametrize("policy", ["[always] madvise never", None])
def test_nothing_is_restarted_where_it_would_change_nothing(restarts, policy):
  if policy:
    cpu._HUGE_PAGES_POLICY.write_text(policy)
  else:
    cpu._HUGE_PAGES_POLICY.unlink()
  cpu.restart_with_huge_pages()
  assert restarts == []


def test_settings_are_made_before_anything_slow_is_imported():
  code = (
    "import sys; from byol_jax.runtime import cpu;"
    " cpu.choose_fast_convolutions();"
    " print({'jax', 'numpy', 'tensorflow'} & set(sys.modules))"
  )
  done = subprocess.run(
    [sys.executable, "-c", code],
    cwd=command_line.ROOT,
    capture_output=True,
    text=True,
    check=True,
  )
  assert done.stdout == "set()\n"
