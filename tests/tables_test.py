"""The table of several seeds."""

import json

import pytest

from byol_jax import errors
from byol_jax.reporting import tables


def results(step=9, **values):
  """Returns the contents of a `results.json`."""
  common = {"dataset": "digits", "train_split": "train", "split": "test"}
  found = {}
  for protocol, (network, value, interval) in values.items():
    one = {"value": value, "protocol": protocol, "metric": "top1"}
    one |= common | {"step": step, "examples": 10, "network": network}
    found[f"{network}/{protocol}"] = one | (
      {"interval": interval} if interval else {}
    )
  return found


def store(folder, seed, found, **settings):
  workdir = folder / f"seed{seed}"
  workdir.mkdir()
  config = {"seed": seed, "train": {"epochs": 1} | settings}
  (workdir / "config.json").write_text(json.dumps(config))
  (workdir / "results.json").write_text(json.dumps(found))


def test_a_cell_is_the_mean_and_half_the_range(tmp_path):
  for seed, value in enumerate((0.5, 0.9, 0.7)):
    found = results(
      knn=("online", value, [value - 0.01 * seed, value + 0.01]),
      rank_me=("online", 10, None),
    ) | results(knn=("online, untrained", 0.3, None))
    store(tmp_path, seed, found)
  *_, knn, rank = tables.write(tmp_path).read_text().splitlines()
  # The third seed's interval is the widest.
  assert knn == (
    "| digits knn top1 | 0.700 ± 0.200 [0.680, 0.710] | 0.300 ± 0.000 | - |"
  )
  assert rank == "| digits rank_me top1 | 10.000 ± 0.000 | - | - |"


def test_a_cell_says_how_many_seeds_have_its_result(tmp_path):
  knn = ("online", 0.5, None)
  store(tmp_path, 0, results(knn=knn, linear=("online", 0.6, None)))
  store(tmp_path, 1, results(knn=knn))
  *_, linear = tables.write(tmp_path).read_text().splitlines()
  assert linear == (
    "| digits linear top1 | 0.600 ± 0.000 (1 of 2 seeds) | - | - |"
  )


def test_a_folder_of_images_may_lie_elsewhere_for_another_seed(tmp_path):
  knn = {
    seed: results(knn=("online", value, None))["online/knn"]
    | {"dataset": f"/job{seed}/photos"}
    for seed, value in ((0, 0.5), (1, 0.7))
  }
  for seed, result in knn.items():
    found = {"knn/top1": result, "photos/knn/top1": result | {"value": 0.9}}
    store(tmp_path, seed, found)
    path = tmp_path / f"seed{seed}" / "config.json"
    data = {"root": f"/job{seed}/photos", "fingerprint": "abc"}
    path.write_text(json.dumps({"seed": seed, "data": data}))
  *_, own, other = tables.write(tmp_path).read_text().splitlines()
  assert own == "| photos knn top1 | 0.600 ± 0.100 | - | - |"
  assert other == "| folder/photos knn top1 | 0.900 ± 0.000 | - | - |"
  path.write_text(path.read_text().replace("abc", "def"))
  assert "data.root=/job1/photos (images def)" in refused(tmp_path)


def refused(folder):
  with pytest.raises(errors.UserError) as info:
    tables.write(folder)
  assert "\n" not in str(info.value)
  return str(info.value)


def test_runs_that_differ_in_more_than_the_seed_are_refused_in_one_line(
  tmp_path,
):
  store(tmp_path, 0, {}, compilation_cache="there")
  store(tmp_path, 1, {}, compilation_cache="here", epochs=2)
  assert "train.epochs=2" in refused(tmp_path)


def test_results_of_different_steps_are_not_averaged(tmp_path):
  for seed, step in enumerate((9, 8)):
    store(tmp_path, seed, results(step, knn=("online", 0.5, None)))
  assert "step=8" in refused(tmp_path)


def test_results_without_a_configuration_are_one_line(tmp_path):
  store(tmp_path, 0, {})
  (tmp_path / "seed0" / "config.json").unlink()
  assert "config.json is missing" in refused(tmp_path)
