"""The keys of the section `evaluation`, as `config.schema` has those of all others.

[P] is Grill et al. 2020 (arXiv 2006.07733v3), [C] deepmind-research/byol.
"""

import dataclasses
from dataclasses import field

from byol_jax.augment import spec

Range = tuple[float, float]  # (low, high).


@dataclasses.dataclass(slots=True)
class KnnConfig:
  """The protocol `knn`."""

  k: int = 20  # Wu et al. 2018 as run by DINO's eval_knn.
  temperature: float = 0.07  # Wu et al. 2018


@dataclasses.dataclass(slots=True)
class RetrievalConfig:
  """The protocol `retrieval`."""

  k: int = 10  # Precision at 10 is usual.


@dataclasses.dataclass(slots=True)
class GeometryConfig:
  """The protocol `geometry`."""

  # Of LiDAR: images, whose number bounds it, and pairs of views of each. The paper
  # takes 1000 images and 50 views (arXiv 2312.04000); 10 views are our choice, for a
  # fifth of the time.
  lidar_images: int = 1000
  lidar_pairs: int = 5


@dataclasses.dataclass(slots=True)
class LinearConfig:
  """The protocol `linear`."""

  # random: new crops for every step, as in the paper; centre: features of the
  # centre crop, made once, which is quick and less accurate.
  crops: str = "random"
  learning_rates: tuple[float, ...] = (0.4, 0.3, 0.2, 0.1, 0.05)  # [P] C.1
  epochs: float = 80.0  # [P] C.1
  batch_size: int = 1024  # [P] C.1; rates are for 256, as in [C].


@dataclasses.dataclass(slots=True)
class LogisticConfig:
  """The protocol `logistic`."""

  # Strengths of the l2 penalty on the summed loss, log-spaced. [P] D.2
  l2_range: Range = (1e-6, 1e5)
  l2_count: int = 45


@dataclasses.dataclass(slots=True)
class SemiSupervisedConfig:
  """The protocol `semi_supervised` ([P] C.1)."""

  labels: tuple[float, ...] = (0.01, 0.1)  # Fractions, or counts above 1.
  learning_rates: tuple[float, ...] = (0.1, 0.05, 0.02, 0.01, 0.005)
  epochs: tuple[float, ...] = (30.0, 50.0)
  batch_size: int = 1024


@dataclasses.dataclass(slots=True)
class FinetuneConfig:
  """The protocol `finetune` ([P] D.3)."""

  # Log-spaced grids; decays are divided by the rate, and 0 is tried as well.
  rate_range: Range = (1e-4, 0.1)
  rate_count: int = 7
  decay_range: Range = (1e-6, 1e-3)
  decay_count: int = 7
  steps: int = 20_000
  batch_size: int = 256


@dataclasses.dataclass(slots=True)
class EvaluationConfig:
  """The paper's protocols ([P] C.1, D.2, D.3) and their baselines."""

  # Names in `evaluation.protocols.PROTOCOLS`, run when pretraining ends; (): none.
  protocols: tuple[str, ...] = ("knn", "linear")
  # Evaluate a small part of the train split after so many epochs of training, again
  # and again; see `evaluation.monitor`. 0: never.
  every_epochs: float = 0.0
  batch_size: int = 256  # Speed only: no metric depends on it.
  # Run the same protocols on raw pixels and on the untrained encoder.
  baselines: bool = True
  # What the experiment should give with its own settings, for people to compare:
  # NAME=VALUE for names of `results.json`.
  expected: tuple[str, ...] = ()
  # Another data set to evaluate on, named as data.dataset; for folder and arrays,
  # its root.
  dataset: str = ""
  root: str = ""
  # A name in `evaluation.metrics.METRICS`; empty: the data set's own.
  metric: str = ""
  # Split expressions; empty: the data set's own. Where it has no validation
  # split, the last `holdout` of train is what hyper-parameters are chosen on; the
  # test split decides nothing.
  train_split: str = ""
  test_split: str = ""
  holdout: float = 0.2
  # The random crops of linear and fine-tuning. [C] utils/dataset.py
  view: spec.Crop = field(default_factory=spec.Crop)
  knn: KnnConfig = field(default_factory=KnnConfig)
  retrieval: RetrievalConfig = field(default_factory=RetrievalConfig)
  geometry: GeometryConfig = field(default_factory=GeometryConfig)
  linear: LinearConfig = field(default_factory=LinearConfig)
  logistic: LogisticConfig = field(default_factory=LogisticConfig)
  semi_supervised: SemiSupervisedConfig = field(
    default_factory=SemiSupervisedConfig
  )
  finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
