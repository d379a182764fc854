"""What makes CPUs fast and must be settled before JAX starts."""

import os
import pathlib
import sys

_HUGE_PAGES = "glibc.malloc.hugetlb"
_HUGE_PAGES_POLICY = pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled")

# XLA's CPU backend hands convolutions to YNNPACK by default, whose weight
# gradients are up to 15 times slower than Eigen's (benchmarks/README.md).
# Naming no kind of operation leaves all to Eigen.
_NO_YNNPACK = "--xla_cpu_experimental_ynn_fusion_type"


def choose_fast_convolutions() -> None:
  """Makes XLA compute convolutions on CPUs by Eigen.

  Has an effect only before JAX is first used, none on GPUs and TPUs, and leaves
  the user's own choice in XLA_FLAGS as it is.
  """
  _choose(_NO_YNNPACK, "")


def raise_collective_timeout() -> None:
  """Makes a process on CPUs wait for what others take long for.

  Of XLA's 30 seconds, one compiling or preparing data alone is soon a loss. One
  that is gone is noticed anyway. As above otherwise.
  """
  _choose("--xla_cpu_collective_timeout_seconds", "86400")


def _choose(flag: str, value: str) -> None:
  chosen = os.environ.get("XLA_FLAGS", "")
  if flag not in chosen:
    os.environ["XLA_FLAGS"] = f"{chosen} {flag}={value}".strip()


def restart_with_huge_pages() -> None:
  """Runs this program anew with a memory allocator that asks for huge pages.

  XLA takes fresh memory for every step, and to clear it page by page costs a
  sixth to a quarter of a CPU's step (benchmarks/README.md). glibc looks at its
  settings only when a program starts. Does nothing where that was done, where
  the system gives huge pages unasked, or where it has none to give. To be
  called before anything that takes long to import.
  """
  tunables = os.environ.get("GLIBC_TUNABLES", "")
  if _HUGE_PAGES in tunables or not _HUGE_PAGES_POLICY.exists():
    return
  if "[madvise]" in _HUGE_PAGES_POLICY.read_text():
    settings = [tunables] if tunables else []
    os.environ["GLIBC_TUNABLES"] = ":".join([*settings, f"{_HUGE_PAGES}=1"])
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
