"""Which code has a form of its own on some platforms, and why.

The forms give the same numbers as the plain code up to rounding. Those of CPUs and GPUs
are measured in benchmarks/README.md, all but the flat all-reduce.
"""

import contextlib
import contextvars
from collections.abc import Iterator

import jax

# Each form: on which platforms, and what XLA does there with the plain code.
FORMS = {
  # models/cpu_convolution.py, models/winograd.py
  "convolution": (
    ("cpu",),
    "computes derivatives, and kernels of 1x1, by slow loops",
  ),
  # models/cpu_depthwise.py
  "depthwise convolution": (
    ("cpu",),
    "computes it and its derivatives by slow loops",
  ),
  # models/convolution.py
  "convolution on blocks": (
    ("gpu", "tpu"),
    "fills matrix units badly with the 3 channels of an image",
  ),
  # models/batch_norm.py
  "column sums in slices": (
    ("cpu",),
    "adds rows one by one and stores the terms",
  ),
  "column sums in two stages": (
    ("gpu",),
    "gives 32 columns of all rows to one block of threads",
  ),
  # runtime/devices.py
  "flat all-reduce": (
    ("cpu",),
    "takes milliseconds for each array between processes",
  ),
}

_assumed: contextvars.ContextVar[str | None] = contextvars.ContextVar(
  "assumed_platform", default=None
)


def current() -> str:
  """Returns the platform that functions are traced for: cpu, gpu or tpu."""
  return _assumed.get() or jax.default_backend()


def takes_form(name: str) -> bool:
  """Returns whether to compute in a form of `FORMS`."""
  platforms, _ = FORMS[name]
  return current() in platforms


@contextlib.contextmanager
def assume(platform: str) -> Iterator[None]:
  """Traces functions in its block for another platform, to look at them.

  For a platform of another name, such as "any", all code is plain.
  """
  token = _assumed.set(platform)
  try:
    yield
  finally:
    _assumed.reset(token)
