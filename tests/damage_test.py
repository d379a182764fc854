"""A damaged file of a workdir is named in one line, and nothing in it is lost."""

import concurrent.futures
import json
import threading
import time
import types

import pytest

from byol_jax import errors
from byol_jax.config import schema
from byol_jax.evaluation import results
from byol_jax.reporting import sweep, tables
from byol_jax.runtime import writers
from byol_jax.training import saved_settings, workdir_files
from tests.eval_cases import RESULT

DAMAGE = {
  "empty": b"",
  "cut": b'{"knn/top1": {"value": 0.5, "st',
  "not JSON": b"hello\n",
  "another type": b"[1, 2]",
  "a number": b"3",
  "binary": bytes(range(256)),
  "deep": b"[" * 100_000,
}


def warning(caplog):
  """The one line that was logged."""
  (record,) = caplog.records
  assert "\n" not in record.getMessage()
  return record.getMessage()


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_results_are_kept_aside_and_made_again(
  damage, tmp_path, caplog
):
  path = tmp_path / "results.json"
  path.write_bytes(DAMAGE[damage])
  assert results.read(tmp_path) == {}
  assert str(path) in warning(caplog)
  assert path.with_name("results.json.damaged").read_bytes() == DAMAGE[damage]
  results.add(tmp_path, {"knn/top1": RESULT})
  assert results.read(tmp_path) == {"knn/top1": RESULT}
  assert len(caplog.records) == 1


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_class_names_are_kept_aside(damage, tmp_path, caplog):
  path = tmp_path / "classes.json"
  path.write_bytes(DAMAGE[damage])
  workdir_files.add_class_names(tmp_path, "cars", ["bus"])
  assert json.loads(path.read_text()) == {"cars": ["bus"]}
  assert str(path) in warning(caplog)
  assert path.with_name("classes.json.damaged").read_bytes() == DAMAGE[damage]


@pytest.mark.parametrize(
  "entry", [3, {}, RESULT | {"value": "0.5"}, RESULT | {"network": None}]
)
def test_whole_results_beside_damaged_ones_go_on(entry, tmp_path, caplog):
  path = tmp_path / "results.json"
  path.write_text(json.dumps({"knn/top1": RESULT, "linear/top1": entry}))
  text = path.read_text()
  assert results.read(tmp_path) == {"knn/top1": RESULT}
  assert "linear/top1" in warning(caplog)
  assert path.with_name("results.json.damaged").read_text() == text
  assert json.loads(path.read_text()) == {"knn/top1": RESULT}


def test_results_that_are_added_at_the_same_time_are_all_kept(
  tmp_path, monkeypatch
):
  read = results.read

  def slowly(workdir):
    found = read(workdir)
    time.sleep(0.05)
    return found

  monkeypatch.setattr(results, "read", slowly)
  names = [f"knn/{i}" for i in range(8)]
  # `flock` is between open files, so it also holds between threads.
  monkeypatch.setattr(results.files, "temporary_path", _of_this_thread)
  with concurrent.futures.ThreadPoolExecutor(len(names)) as pool:
    [*pool.map(lambda name: results.add(tmp_path, {name: RESULT}), names)]
  assert sorted(read(tmp_path)) == names


def _of_this_thread(path):
  return path.with_name(f".{threading.get_ident()}.{path.name}")


def test_results_of_two_folders_of_the_same_name_are_not_mixed(tmp_path):
  folders = [tmp_path / name / "photos" for name in ("one", "two")]
  for folder in folders:
    folder.mkdir(parents=True)
  one, two = map(str, folders)
  config = schema.Config()
  config.evaluation.dataset, config.evaluation.root = "folder", one
  run = types.SimpleNamespace(workdir=tmp_path, config=config)
  results.add(tmp_path, {"photos/knn/top1": RESULT | {"dataset": one}})
  results.check_same_folder(run, one)
  with pytest.raises(errors.UserError, match=f"results of {one}, .* of {two}"):
    results.check_same_folder(run, two)
  folders[0].rename(tmp_path / "elsewhere")
  results.check_same_folder(run, two)  # As if it had moved there.


def test_unreadable_results_are_one_line(tmp_path):
  (tmp_path / "results.json").mkdir()
  with pytest.raises(errors.UserError, match="Is a directory"):
    results.read(tmp_path)


@pytest.mark.parametrize("damage", [*DAMAGE, "no keys"])
def test_damaged_settings_stop_a_run_that_has_checkpoints(damage, tmp_path):
  path = tmp_path / "config.json"
  content = DAMAGE.get(damage, b"{}")
  path.write_bytes(content)
  saved_settings.check(tmp_path, schema.Config(), "")  # Nothing to lose.
  (tmp_path / "checkpoints" / "3").mkdir(parents=True)
  with pytest.raises(errors.UserError) as info:
    saved_settings.check(tmp_path, schema.Config(), "")
  assert str(info.value).startswith(f"{path} is damaged: ")
  assert "put back a copy" in str(info.value)
  assert "\n" not in str(info.value)
  assert path.read_bytes() == content


@pytest.mark.parametrize(
  ("change", "reason"),
  [
    ({"train": {"steps": "ten"}}, "train.steps='ten' must be a whole number"),
    ({"train": "x"}, "'x' is no section"),
    ({"ema": {"base": {"a": 1}}}, "ema.base={'a': 1} must be a finite number"),
    ({"data": {"mean": 3}}, "data.mean=3 must be a tuple"),
    ({"history": []}, "history=[] is no history"),
    ({"history": {"extended_at": ["3"]}}, "is no history"),
    ({"history": {"started_from": "x"}}, "is no history"),
  ],
)
def test_settings_of_another_type_are_damaged(change, reason, tmp_path):
  path = tmp_path / "config.json"
  path.write_text(json.dumps(change))
  with pytest.raises(errors.UserError) as info:
    saved_settings.read_history(tmp_path)
  assert str(info.value).startswith(f"{path} is damaged: ")
  assert reason in str(info.value)
  assert "; put back a copy" in str(info.value)


LINES = {
  "not JSON": "hello\n",
  "a number": "3\n",
  "no step": '{"train/loss": 1.0}\n',
  "a step of text": '{"step": "2"}\n',
  "text for a number": '{"step": 2, "train/loss": "low"}\n',
  "binary": "\0\ufffd\x7f\n",
}


@pytest.mark.parametrize("damage", LINES)
def test_damaged_lines_of_metrics_are_kept_aside(damage, tmp_path, caplog):
  path = tmp_path / "metrics.jsonl"
  good = '{"step": 1, "a": null}\n', '{"step": 3, "a": 2.0}\n'
  text = good[0] + LINES[damage] + good[1]
  path.write_text(text)
  assert [row["step"] for row in writers.read_jsonl(path)] == [1, 3]
  writers.JsonlWriter(path, 5).close()
  assert "1 lines" in warning(caplog)
  assert path.with_name("metrics.jsonl.damaged").read_text() == text
  assert path.read_text() == "".join(good)


@pytest.mark.parametrize("damage", DAMAGE)
def test_the_history_goes_on_after_damage(damage, tmp_path):
  path = tmp_path / "evaluations.jsonl"
  path.write_bytes(b'{"step": 1}\n' + DAMAGE[damage])
  results.append_history(tmp_path, 7, {"knn/top1": 0.5})
  assert path.read_text() == '{"step": 1}\n{"step": 7, "knn/top1": 0.5}\n'


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", ["results.json", "config.json"])
def test_a_table_of_seeds_is_drawn_or_refused_in_one_line(
  name, damage, tmp_path
):
  for seed in (0, 1):
    folder = tmp_path / str(seed)
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"seed": seed}))
    (folder / "results.json").write_text(json.dumps({"knn/top1": RESULT}))
  (tmp_path / "1" / name).write_bytes(DAMAGE[damage])
  if name == "results.json":
    table = tables.write(tmp_path).read_text()
    assert "0.500 ± 0.000 (1 of 2 seeds)" in table
  else:
    with pytest.raises(errors.UserError, match=r"1/config\.json is damaged"):
      tables.write(tmp_path)


@pytest.mark.parametrize("damage", [*DAMAGE, "no keys"])
def test_a_damaged_sweep_is_one_line(damage, tmp_path):
  (tmp_path / "sweep.json").write_bytes(DAMAGE.get(damage, b"{}"))
  with pytest.raises(errors.UserError, match=r"sweep\.json is damaged; start"):
    sweep.write(tmp_path)
