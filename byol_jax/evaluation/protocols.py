"""The protocols by name: how each learns, and by what it chooses."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from byol_jax.data import host_ops, input_pipeline, loading
from byol_jax.evaluation import features as features_lib
from byol_jax.evaluation import (
  finetune,
  geometry,
  knn,
  linear,
  logistic,
  retrieval,
  scores,
)
from byol_jax.evaluation.features import Features
from byol_jax.evaluation.subject import Splits, Subject, features_of
from byol_jax.learning import optimizers
from byol_jax.runtime import devices, processes
from byol_jax.training import runs

# Names within a protocol, and what `results.json` says under them.
Results = Iterator[tuple[str, dict[str, Any]]]


class Classifier(NamedTuple):
  """What a protocol learnt from the splits to learn from.

  Attributes:
    name: before the metric, if the protocol makes several; may be "".
    scores: from a split expression to the scores of all classes, [N, C].
    details: what it was made with and what was chosen.
  """

  name: str
  scores: Callable[[str], np.ndarray]
  details: dict[str, Any]


def _metric(subject: Subject) -> str:
  return subject.source.dataset.metric


def _value(subject: Subject, found: Features) -> float:
  """How good scores, the vectors, are; -1 for those of what diverged.

  What is chosen by it must be the same in all processes, so the first one's
  rounding counts.
  """

  def judge() -> float:
    if not np.all(np.isfinite(found.vectors)):
      return -1.0
    return scores.value(_metric(subject), found.labels, found.vectors)

  return processes.of_first(judge)


def _chosen(
  tried: list[dict[str, Any]], judged: list[float], splits: Splits
) -> tuple[dict[str, Any], dict[str, Any]]:
  """The best of what was tried, the first of equals, and how it did."""
  best = int(np.argmax(judged))
  return tried[best], {
    **tried[best],
    "tried": len(tried),
    "validation": judged[best],
    "validation_examples": len(splits.validation),
  }


def _spaced(ends: tuple[float, float], count: int) -> list[float]:
  """Numbers at equal ratios, from one end to the other."""
  return np.geomspace(ends[0], ends[1], count).tolist()


def _knn(subject: Subject, splits: Splits) -> Iterator[Classifier]:
  options = subject.run.config.evaluation.knn
  bank = features_of(subject, splits.train)

  def votes(split):
    return knn.scores(
      bank,
      features_of(subject, split).vectors,
      k=options.k,
      temperature=options.temperature,
      num_classes=subject.source.num_classes,
    )

  yield Classifier("", votes, options.to_dict())


def _logistic(subject: Subject, splits: Splits) -> Iterator[Classifier]:
  options = subject.run.config.evaluation.logistic
  classes = subject.source.num_classes
  both = features_of(subject, splits.train)
  # The strongest penalty first: of equals, the simpler is taken.
  strengths = _spaced(options.l2_range, options.l2_count)[::-1]

  def standardised(examples):
    scaled = logistic.standard(examples.vectors)
    return scaled, examples._replace(vectors=scaled(examples.vectors))

  scaled, fit = standardised(both.part(splits.fit))
  held = both.part(splits.validation)
  vectors = scaled(held.vectors)
  judged = [
    _value(subject, held._replace(vectors=linear.scores(head, vectors)))
    for head in logistic.path(fit, strengths, classes)
  ]
  chosen, details = _chosen([{"l2": l2} for l2 in strengths], judged, splits)
  scaled, whole = standardised(both)
  (head,) = logistic.path(whole, [chosen["l2"]], classes)
  yield Classifier(
    "",
    lambda split: linear.scores(
      head, scaled(features_of(subject, split).vectors)
    ),
    details,
  )


def _epochs_in_steps(epochs: float, examples: int, batch_size: int) -> int:
  return max(round(epochs * examples / batch_size), 1)


def _crops(
  subject: Subject, splits: Splits, places: range | np.ndarray, batch_size: int
) -> Iterator[dict[str, np.ndarray]]:
  """Random crops to train on, see `input_pipeline.labelled_batches`."""
  config = subject.run.config
  unchanged = dict.fromkeys(host_ops.View._fields, 0.0)
  return input_pipeline.labelled_batches(
    subject.source,
    splits.train,
    places,
    host_ops.View(**unchanged | config.evaluation.view.to_dict()),
    runs.make_reading(config),
    batch_size=batch_size,
    image_size=config.data.image_size,
    channels=config.data.channels,
    seed=config.seed,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
  )


def _shuffled(
  features: Features, batch_size: int, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """Endless batches, epoch after epoch in another order."""
  random, order = np.random.RandomState(seed), np.zeros(0, np.int64)
  while True:
    while len(order) < batch_size:
      epoch = random.permutation(len(features.labels))
      order = np.concatenate([order, epoch])
    # In the order of a file, which is then read from front to back.
    batch, order = np.sort(order[:batch_size]), order[batch_size:]
    yield features.part(batch)


def _linear(subject: Subject, splits: Splits) -> Iterator[Classifier]:
  options = subject.run.config.evaluation.linear
  classes = subject.source.num_classes
  both = features_of(subject, splits.train)

  def batches(places, batch_size):
    if options.crops == "centre":
      seed = subject.run.config.seed
      return _shuffled(both.part(places), batch_size, seed)
    crops = _crops(subject, splits, places, batch_size)
    return features_lib.extract(subject.encode, crops)

  def fit(places, learning_rates):
    batch_size = _batch_size(options.batch_size, len(places))
    return linear.fit(
      batches(places, batch_size),
      learning_rates=[
        optimizers.peak_learning_rate(rate, batch_size)
        for rate in learning_rates
      ],
      total_steps=_epochs_in_steps(options.epochs, len(places), batch_size),
      num_features=both.vectors.shape[1],
      num_classes=classes,
    )

  held = both.part(splits.validation)
  heads = fit(splits.fit, options.learning_rates)
  each = [jax.tree.map(lambda x, i=i: x[i], heads) for i in range(len(heads.b))]
  judged = [
    _value(subject, held._replace(vectors=linear.scores(head, held.vectors)))
    for head in each
  ]
  tried = [{"learning_rate": rate} for rate in options.learning_rates]
  chosen, details = _chosen(tried, judged, splits)
  final = fit(range(len(both.labels)), [chosen["learning_rate"]])
  head = jax.tree.map(lambda x: x[0], final)
  details |= {
    "crops": options.crops,
    "epochs": options.epochs,
    "batch_size": _batch_size(options.batch_size, len(both.labels)),
  }
  yield Classifier(
    "",
    lambda split: linear.scores(head, features_of(subject, split).vectors),
    details,
  )


def _tune(
  subject: Subject,
  splits: Splits,
  places: range | np.ndarray,
  recipes: list[finetune.Recipe],
  batch_size: int,
) -> Iterator[finetune.State]:
  """What each recipe makes of the subject's network on some examples."""
  run = subject.run
  config = run.config.copy_and_resolve_references()
  config.model.batch_norm.decay_rate = finetune.batch_norm_decay_rate(
    len(places) / batch_size
  )
  fit = finetune.make_fit(runs.build_network(config, run.num_classes))
  side, channels = config.data.image_size, config.data.channels
  image = np.zeros((1, side, side, channels), np.float32)
  for recipe in recipes:
    yield fit(
      subject.params,
      subject.state,
      _crops(subject, splits, places, batch_size),
      recipe,
      num_features=subject.encode(image).shape[1],
      num_classes=subject.source.num_classes,
    )


def _scorer(subject: Subject) -> Callable[..., Features]:
  """What gives a fine-tuned network's scores of a split, beside the labels."""
  run = subject.run
  network = runs.build_network(run.config, run.num_classes)

  def of_images(tuned, images):
    outputs, _ = network.apply(
      tuned.params, tuned.state, images, is_training=False
    )
    return jnp.matmul(outputs.embedding, tuned.head.w) + tuned.head.b[None]

  mapped = devices.pmap_examples(of_images)

  def score(
    tuned: finetune.State, split: str, places: range | None = None
  ) -> Features:
    batches = features_lib.extract(
      lambda images: mapped(tuned, images),
      runs.eval_batches(
        run.config, subject.source, split, places=places, spread=True
      ),
      loading.num_examples(subject.source, split)
      if places is None
      else len(places),
    )
    return Features(*map(np.concatenate, zip(*batches, strict=True)))

  return score


def _batch_size(wanted: int, examples: int) -> int:
  """As large as wanted, if there are so many; divisible by the devices."""
  count = jax.device_count()
  return max(min(wanted, examples) // count, 1) * count


def _semi_supervised(subject: Subject, splits: Splits) -> Iterator[Classifier]:
  """Grill et al. 2020, C.1; the validation examples choose only."""
  options = subject.run.config.evaluation.semi_supervised
  labels = features_of(subject, splits.train).part(splits.fit).labels
  size, score = splits.validation.stop, _scorer(subject)
  for wanted in options.labels:
    count = wanted if wanted > 1 else wanted * size
    places = finetune.stratified(labels, count, subject.run.config.seed)
    batch_size = _batch_size(options.batch_size, len(places))
    tried = [
      {"learning_rate": rate, "epochs": epochs}
      for rate in options.learning_rates
      for epochs in options.epochs
    ]
    recipes = [
      finetune.Recipe(
        optimizers.peak_learning_rate(one["learning_rate"], batch_size),
        0.0,
        _epochs_in_steps(one["epochs"], len(places), batch_size),
      )
      for one in tried
    ]
    best, judged = None, []
    for state in _tune(subject, splits, places, recipes, batch_size):
      judged.append(
        _value(subject, score(state, splits.train, splits.validation))
      )
      if np.argmax(judged) == len(judged) - 1:
        best = jax.device_get(state)
    _, details = _chosen(tried, judged, splits)

    def logits(split, state=best):
      return score(state, split).vectors

    yield Classifier(
      f"{wanted}" if wanted > 1 else f"{100 * wanted:g}%",
      logits,
      details | {"labels": len(places), "batch_size": batch_size},
    )


def _finetune(subject: Subject, splits: Splits) -> Iterator[Classifier]:
  """Grill et al. 2020, D.3: chosen on the validation part, then on all."""
  options = subject.run.config.evaluation.finetune
  batch_size = _batch_size(options.batch_size, len(splits.fit))
  decays = _spaced(options.decay_range, options.decay_count)
  rates = _spaced(options.rate_range, options.rate_count)
  tried = [
    {"learning_rate": rate, "weight_decay": decay / rate}
    for rate in rates
    for decay in [0.0, *decays]
  ]
  recipes = [finetune.Recipe(**one, total_steps=options.steps) for one in tried]
  score = _scorer(subject)
  judged = [
    _value(subject, score(state, splits.train, splits.validation))
    for state in _tune(subject, splits, splits.fit, recipes, batch_size)
  ]
  chosen, details = _chosen(tried, judged, splits)
  recipe = recipes[tried.index(chosen)]
  everything = range(splits.validation.stop)
  (final,) = _tune(subject, splits, everything, [recipe], batch_size)
  yield Classifier(
    "",
    lambda split: score(final, split).vectors,
    details | {"steps": options.steps, "batch_size": batch_size},
  )


def _scored(
  learn: Callable[[Subject, Splits], Iterator[Classifier]],
) -> Callable[[Subject, Splits], Results]:
  """A protocol that is judged by the data set's metric on the test split."""

  def results(subject: Subject, splits: Splits) -> Results:
    metric, seed = _metric(subject), subject.run.config.seed
    # Whatever is chosen was chosen without the name of the test split.
    for one in learn(subject, splits._replace(test="")):
      labels = features_of(subject, splits.test).labels
      figure = scores.judge(metric, labels, one.scores(splits.test), seed)
      name = f"{one.name}_{metric}" if one.name else metric
      yield name, {**figure, **one.details}

  return results


def bank_and_queries(
  subject: Subject, splits: Splits
) -> tuple[Features, Features]:
  """A bank, and what is compared with it: itself where nothing is labelled."""
  bank = features_of(subject, splits.train)
  if not splits.test:
    return bank, bank
  return bank, features_of(subject, splits.test)


def _retrieval(subject: Subject, splits: Splits) -> Results:
  bank, queries = bank_and_queries(subject, splits)
  config = subject.run.config
  return retrieval.run(
    bank,
    queries,
    k=config.evaluation.retrieval.k,
    exclude_self=queries is bank,
    seed=config.seed,
  )


def _geometry(subject: Subject, splits: Splits) -> Results:
  return geometry.run(
    bank_and_queries(subject, splits)[1], seed=subject.run.config.seed
  )


PROTOCOLS: dict[str, Callable[[Subject, Splits], Results]] = {
  "knn": _scored(_knn),
  "linear": _scored(_linear),
  "logistic": _scored(_logistic),
  "semi_supervised": _scored(_semi_supervised),
  "finetune": _scored(_finetune),
  # These need neither labels nor a test split.
  "retrieval": _retrieval,
  "geometry": _geometry,
}
UNLABELLED = ("retrieval", "geometry")
OF_NETWORKS = ("semi_supervised", "finetune")  # Pixels cannot be fine-tuned.
