"""A short form of `tests.chaos`, which runs for as long as you like."""

import pytest

from tests import chaos


@pytest.mark.slow
def test_a_run_survives_kills_and_repeated_signals(tmp_path, digits_dir):
  lab = chaos.Lab(tmp_path, digits_dir, seed=0)
  faults = ["SIGKILL while saving", "SIGTERM twice while evaluating"]
  outcome = chaos.episode(lab, faults, tmp_path / "run")
  assert outcome.by_fault == dict.fromkeys(faults, "survived"), outcome.text
