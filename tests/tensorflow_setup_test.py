"""TensorFlow's settings, which it accepts before its first operation only."""

import json
import subprocess
import sys

import tensorflow as tf

from byol_jax.data import tensorflow_setup
from tests import command_line

# A CPU build of TensorFlow never sees a GPU, so the request to hide GPUs is
# recorded. TensorFlow refuses the number of threads once it has run an
# operation, so the number at the end tells whether the requests came in time.
PROGRAM = """
import json, sys
import tensorflow as tf

requests = []
tf.config.set_visible_devices = lambda *args: requests.append(args)
threads = tf.config.threading.get_intra_op_parallelism_threads

from byol_jax.data import loading
found = {"after_import": [[*requests], threads()]}
loading.load("mnist_digits", sys.argv[1])
tf.constant(1)
found["after_load"] = [[*requests], threads()]
print(json.dumps(found))
"""


def test_tensorflow_is_told_to_see_no_accelerator_when_data_is_opened(
  digits_dir,
):
  done = subprocess.run(
    [sys.executable, "-c", PROGRAM, digits_dir],
    cwd=command_line.ROOT,
    check=True,
    stdout=subprocess.PIPE,
  )
  found = json.loads(done.stdout)
  assert found["after_import"] == [[], 0]  # Importing has no side effect.
  assert found["after_load"] == [[[[], "GPU"]], 1]


def test_program_that_has_run_tensorflow_gets_a_warning(monkeypatch):
  def refuse(_):
    raise RuntimeError("cannot be modified after initialization")

  warnings = []
  monkeypatch.setattr(
    tf.config.threading, "set_intra_op_parallelism_threads", refuse
  )
  monkeypatch.setattr(
    tensorflow_setup.logging, "warning", lambda *args: warnings.append(args)
  )
  tensorflow_setup.configure_tensorflow.__wrapped__()
  assert "cannot be modified" in str(warnings[0][1])
