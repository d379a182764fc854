"""How well other metrics rank the runs of a sweep by its own."""

from collections.abc import Iterable

import numpy as np
from scipy import stats

from byol_jax.evaluation.eval_model import ONLINE
from byol_jax.evaluation.results import NETWORKS
from byol_jax.reporting import tables

_FEWEST_RUNS = 3  # Our choice: two runs are always ranked rightly or wrongly.


def rank_correlations(
  results: Iterable[tables.Results], metric: str
) -> list[str]:
  """Returns a Markdown table of rank correlations with a metric over runs.

  Args:
    results: of the runs.
    metric: a name in `results.json`, such as linear/top1.

  Returns:
    The lines of the table, a row for every other metric of the trained encoder that
    differs between at least three runs: Spearman's rho and Kendall's tau (b), both in
    [-1, 1]. [] if there is none.
  """
  pairs: dict[str, list[tuple[float, float]]] = {}
  for of_run in results:
    if metric in of_run:
      for name, result in of_run.items():
        if name != metric and result["network"] == NETWORKS[ONLINE]:
          both = (result["value"], of_run[metric]["value"])
          pairs.setdefault(name, []).append(both)
  rows = []
  for name, values in pairs.items():
    score, wanted = np.transpose(values)
    if len(score) >= _FEWEST_RUNS and np.ptp(score) > 0 and np.ptp(wanted) > 0:
      rho = stats.spearmanr(score, wanted).statistic
      tau = stats.kendalltau(score, wanted).statistic
      rows.append([name, str(len(score)), f"{rho:.2f}", f"{tau:.2f}"])
  if not rows:
    return []
  header = ("score", "runs", "Spearman's rho", "Kendall's tau")
  return tables.markdown(header, rows)
