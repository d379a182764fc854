"""Training from Python as docs/training.md shows it, in a thread and a loop."""

import asyncio
import json
import textwrap
import threading

import pytest

from tests import command_line

# Smaller and shorter than the page's run.
TINY = """
settings.data.data_dir = {data_dir!r}
settings.data.image_size = 16
settings.model.encoder.name = "TinyResNet"
settings.model.encoder.width = 0.5
settings.train.batch_size = 32
settings.train.steps = 3
settings.log.every_steps = 1
settings.log.diagnose = False
"""


def snippet():
  page = (command_line.ROOT / "docs" / "training.md").read_text()
  section = page.partition("## From Python")[2].partition("\n- ")[0]
  lines = [x for x in section.splitlines() if not x or x.startswith("    ")]
  return textwrap.dedent("\n".join(lines))


@pytest.mark.slow
def test_the_snippet_trains_in_a_thread_with_a_running_loop(
  tmp_path, digits_dir, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  before, validated, after = snippet().partition("config.validate")
  names = {}

  async def work():  # A notebook runs its cells inside such a loop.
    exec(before + TINY.format(data_dir=digits_dir) + validated + after, names)

  thread = threading.Thread(target=lambda: asyncio.run(work()))
  thread.start()
  thread.join()
  assert int(names["state"].step) == 3
  assert not names["was_finished"]
  log = (tmp_path / "runs" / "from_python" / "metrics.jsonl").read_text()
  rows = [json.loads(line) for line in log.splitlines()]
  assert [row["step"] for row in rows] == [1, 2, 3]
