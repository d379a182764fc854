"""BYOL in JAX: pretrain an encoder, evaluate it, export it.

python -m byol_jax.main --config=experiments/NAME.py[:PRESET] --workdir=DIR \
  [--mode=MODE] [--config.KEY=VALUE ...]
"""

import signal

from byol_jax.runtime import cpu


def run() -> None:
  """Runs the command line, as `python -m byol_jax.main` or as `byol_jax`."""
  # Before the imports that take seconds, as this may start the program anew.
  cpu.restart_with_huge_pages()
  # Ctrl-C during these imports ends the program without a traceback.
  signal.signal(signal.SIGINT, signal.SIG_DFL)
  from byol_jax.cli import command

  command.run()


if __name__ == "__main__":
  run()
