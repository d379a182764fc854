"""Process settings that make CPUs fast; they take effect before JAX starts.

This module imports neither JAX nor anything else that is slow to import.
"""

import importlib.util
import mmap
import os
import pathlib
import sys
from collections.abc import Iterable

# The shared libraries that parse XLA_FLAGS, by package: where they are if the
# package is installed.
_XLA_LIBRARIES = {"jaxlib": "*.so*", "tensorflow": "libtensorflow_cc.so*"}

# XLA's CPU backend hands convolutions to YNNPACK by default, whose weight
# gradients are up to 15 times slower than Eigen's (benchmarks/README.md).
# An empty list of fused operations leaves all of them to Eigen.
_YNNPACK_OPERATIONS = "xla_cpu_experimental_ynn_fusion_type"

# XLA's 30 seconds are too short for a process that compiles or prepares data
# while the others wait; a dead process is noticed by its heartbeat instead.
_COLLECTIVE_TIMEOUT = "xla_cpu_collective_timeout_seconds"
_ONE_DAY = "86400"

_HUGE_PAGES = "glibc.malloc.hugetlb"
_HUGE_PAGES_POLICY = pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled")
# Programs of these packages can be started again from their beginning.
_OUR_PACKAGES = ("byol_jax", "benchmarks")
_CONSOLE_SCRIPT = "byol_jax"


def choose_fast_convolutions() -> None:
  """Makes XLA compute convolutions on CPUs by Eigen.

  Call it before JAX is first used. It changes nothing on GPUs and TPUs.
  """
  set_xla_flag(_YNNPACK_OPERATIONS, "")


def raise_collective_timeout() -> None:
  """Makes a process on CPUs wait up to a day for the others.

  Call it before JAX is first used. It changes nothing on GPUs and TPUs.
  """
  set_xla_flag(_COLLECTIVE_TIMEOUT, _ONE_DAY)


def set_xla_flag(name: str, value: str) -> None:
  """Adds a flag to the environment variable XLA_FLAGS, if it is safe.

  XLA ends the process at a flag that it does not know, and the XLA of
  TensorFlow reads the same variable as that of JAX. A flag that one of them
  lacks is therefore left out, and so is one that the user has set.

  Args:
    name: without the leading dashes.
    value: as text.
  """
  flags = os.environ.get("XLA_FLAGS", "")
  if f"--{name}" not in flags and _is_known(name):
    os.environ["XLA_FLAGS"] = f"{flags} --{name}={value}".strip()


def _is_known(flag: str) -> bool:
  """Returns whether every installed XLA knows a flag."""
  return all(
    _is_in_any(spec.submodule_search_locations or (), pattern, flag)
    for package, pattern in _XLA_LIBRARIES.items()
    if (spec := importlib.util.find_spec(package))
  )


def _is_in_any(folders: Iterable[str], pattern: str, flag: str) -> bool:
  """Returns whether one of the libraries in some folders contains a name."""
  return any(
    _contains(library, flag)
    for folder in folders
    for library in pathlib.Path(folder).glob(pattern)
  )


def _contains(library: pathlib.Path, flag: str) -> bool:
  """Returns whether a file contains a flag's name as a C string."""
  with (
    library.open("rb") as file,
    mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
  ):
    return content.find(flag.encode() + b"\0") >= 0


def restart_with_huge_pages() -> None:
  """Starts this program again with an allocator that asks for huge pages.

  XLA takes fresh memory for every step. Clearing it page by page costs a sixth
  to a quarter of a CPU's step (benchmarks/README.md), and glibc reads its
  settings only when a program starts. Call this before any slow import.

  It returns, and does nothing, if the program was already restarted, if the
  system gives huge pages unasked or has none, under a debugger, and if the
  running program is not one of this project's (which then is a library).
  """
  tunables = os.environ.get("GLIBC_TUNABLES", "")
  if _HUGE_PAGES in tunables or not _HUGE_PAGES_POLICY.exists():
    return
  if "[madvise]" not in _HUGE_PAGES_POLICY.read_text():
    return
  if not _is_our_program() or _is_debugged():
    return
  settings = [tunables] if tunables else []
  os.environ["GLIBC_TUNABLES"] = ":".join([*settings, f"{_HUGE_PAGES}=1"])
  os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _is_our_program() -> bool:
  """Returns whether `python -m` of ours or the console script was started."""
  spec = getattr(sys.modules["__main__"], "__spec__", None)
  if spec is not None:
    return spec.name.partition(".")[0] in _OUR_PACKAGES
  return pathlib.Path(sys.argv[0]).name == _CONSOLE_SCRIPT


def _is_debugged() -> bool:
  """Returns whether a debugger would lose the program by a restart."""
  if sys.gettrace() is not None:
    return True
  monitoring = getattr(sys, "monitoring", None)  # Since Python 3.12.
  return bool(monitoring and monitoring.get_tool(monitoring.DEBUGGER_ID))
