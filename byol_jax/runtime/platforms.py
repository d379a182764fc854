"""Which code has another form on CPUs, and why.

XLA's compilers for GPUs and TPUs do best with the plain form of an operation. Its
CPU backend does not: the forms below give the same numbers up to rounding and are
chosen on CPUs only. All but the flat all-reduce are measured in
benchmarks/README.md; what the plain forms reach on an accelerator is for
`benchmarks.accelerator` to tell.
"""

import contextlib
import contextvars
from collections.abc import Iterator

import jax

# Each form: what XLA's CPU backend does with the plain one.
CPU_FORMS = {
  # models/cpu_convolution.py, models/winograd.py
  "convolution": "computes derivatives, and kernels of 1x1, by slow loops",
  # models/cpu_depthwise.py
  "depthwise convolution": "computes it and its derivatives by slow loops",
  # models/batch_norm.py
  "column sums": "adds rows one by one and stores the terms",
  # runtime/devices.py
  "flat all-reduce": "takes milliseconds for each array between processes",
}

_assumed: contextvars.ContextVar[str | None] = contextvars.ContextVar(
  "assumed_platform", default=None
)


def current() -> str:
  """Returns the platform that functions are traced for: cpu, gpu or tpu."""
  return _assumed.get() or jax.default_backend()


def takes_cpu_form(name: str) -> bool:
  """Returns whether to compute in a form of `CPU_FORMS`."""
  assert name in CPU_FORMS, name
  return current() == "cpu"


@contextlib.contextmanager
def assume(platform: str) -> Iterator[None]:
  """Traces functions in its block for another platform, to look at them."""
  token = _assumed.set(platform)
  try:
    yield
  finally:
    _assumed.reset(token)
