"""The table over seeds."""

import json

import pytest

from byol_jax import errors, summary


def result(value, interval=None):
  return {"value": value} | ({"interval": interval} if interval else {})


def store(folder, seed, results, **settings):
  workdir = folder / f"seed{seed}"
  workdir.mkdir()
  config = {"seed": seed, "train": {"epochs": 1} | settings}
  (workdir / "config.json").write_text(json.dumps(config))
  (workdir / "results.json").write_text(json.dumps(results))


def test_a_figure_is_the_mean_and_half_the_range(tmp_path):
  for seed, value in enumerate((0.5, 0.9, 0.7)):
    store(
      tmp_path,
      seed,
      {
        "knn/top1": result(value, [value - 0.01 * seed, value + 0.01]),
        "geometry/rank_me": result(10),
        "baseline/random_knn_top1": result(0.3),
      },
    )
  *_, knn, rank = summary.write(tmp_path).read_text().splitlines()
  # The third seed's interval is the widest.
  assert (
    knn == "| knn/top1 | 0.700 ± 0.200 [0.680, 0.710] | 0.300 ± 0.000 | - |"
  )
  assert rank == "| geometry/rank_me | 10.000 ± 0.000 | - | - |"


def test_a_seed_that_lacks_a_figure_is_told(tmp_path):
  store(tmp_path, 0, {"knn/top1": result(0.5), "linear/top1": result(0.6)})
  store(tmp_path, 1, {"knn/top1": result(0.5)})
  *_, linear = summary.write(tmp_path).read_text().splitlines()
  assert linear == "| linear/top1 | 0.600 ± 0.000 (1 seeds) | - | - |"


def test_other_differences_than_the_seed_are_one_line(tmp_path):
  store(tmp_path, 0, {})
  store(tmp_path, 1, {}, epochs=2)
  with pytest.raises(errors.UserError, match=r"train\.epochs=2") as info:
    summary.write(tmp_path)
  assert "\n" not in str(info.value)
