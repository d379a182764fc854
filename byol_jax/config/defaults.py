"""The configuration: every key there is, with its default and its source.

Only base values live here. Scaled learning rates, step counts and per-device
batches are derived in code, so that an override never leaves a stale number.
"""

from typing import Any

from ml_collections import config_dict

from byol_jax import errors

# A `ConfigDict`; its values have no static types.
Config = Any

# [P] Grill et al. 2020 (arXiv 2006.07733v3); [C] deepmind-research/byol.


def _view() -> Config:
  """What the two views of an image have in common ([P] table 6)."""
  view: Config = config_dict.ConfigDict()
  view.crop_area = (0.08, 1.0)  # Share of the image's area, drawn uniformly.
  view.crop_aspect = (3 / 4, 4 / 3)  # Width / height, drawn log-uniformly.
  view.flip_prob = 0.5
  view.jitter_prob = 0.8  # One draw for the four colour operations.
  view.brightness = 0.4  # Added: U(-b, b) on images in [0, 1].
  view.contrast = 0.4  # Factor U(1 - c, 1 + c) about each channel's mean.
  view.saturation = 0.2  # Factor U(1 - s, 1 + s) on the S of HSV.
  view.hue = 0.1  # Shift U(-h, h), in turns of the colour circle.
  view.grayscale_prob = 0.2
  view.blur_prob = 1.0
  view.blur_sigma = (0.1, 2.0)  # Pixels; the kernel spans a tenth of the side.
  view.solarize_prob = 0.0
  return view


def _evaluation() -> Config:
  """The paper's protocols ([P] C.1, D.2, D.3) and what stands beside them."""
  evaluation: Config = config_dict.ConfigDict()
  # Names in `evaluation.PROTOCOLS`, run when pretraining ends; () for none.
  evaluation.protocols = ("knn", "linear")
  evaluation.batch_size = 256  # Speed only: no figure depends on it.
  # The same protocols on raw pixels and on the untrained encoder.
  evaluation.baselines = True
  # Another data set to judge on, named as data.dataset; of `folder`, its root.
  evaluation.dataset = ""
  evaluation.root = ""
  # What figures are of, a name in `scores.METRICS`; empty: the data set's own.
  evaluation.metric = ""
  # Split expressions; empty: the data set's own. Where it has no validation
  # split, so large a share of train, its end, is what hyper-parameters are
  # chosen on; the test split decides nothing.
  evaluation.train_split = ""
  evaluation.test_split = ""
  evaluation.holdout = 0.2
  # How random crops of linear and fine-tuning are drawn. [C] utils/dataset.py
  evaluation.view = config_dict.ConfigDict()
  evaluation.view.crop_area = (0.08, 1.0)
  evaluation.view.crop_aspect = (3 / 4, 4 / 3)
  evaluation.view.flip_prob = 0.5

  evaluation.knn = config_dict.ConfigDict()
  evaluation.knn.k = 20  # Wu et al. 2018 as run by DINO's eval_knn.
  evaluation.knn.temperature = 0.07  # Wu et al. 2018
  evaluation.retrieval = config_dict.ConfigDict()
  evaluation.retrieval.k = 10  # Precision at 10 is usual.

  evaluation.linear = config_dict.ConfigDict()
  # random: crops are drawn anew for every step, as in the paper; centre: the
  # centre crop's features, made once, which is quick and tells less.
  evaluation.linear.crops = "random"
  evaluation.linear.learning_rates = (0.4, 0.3, 0.2, 0.1, 0.05)  # [P] C.1
  evaluation.linear.epochs = 80.0  # [P] C.1
  evaluation.linear.batch_size = 1024  # [P] C.1; rates are for 256, as in [C].

  evaluation.logistic = config_dict.ConfigDict()
  # Strengths of the l2 penalty on the summed loss, log-spaced. [P] D.2
  evaluation.logistic.l2_range = (1e-6, 1e5)
  evaluation.logistic.l2_count = 45

  evaluation.semi_supervised = config_dict.ConfigDict()
  # Shares of the labels, or counts above 1.
  evaluation.semi_supervised.labels = (0.01, 0.1)  # [P] C.1, as are the others.
  evaluation.semi_supervised.learning_rates = (0.1, 0.05, 0.02, 0.01, 0.005)
  evaluation.semi_supervised.epochs = (30.0, 50.0)
  evaluation.semi_supervised.batch_size = 1024

  evaluation.finetune = config_dict.ConfigDict()
  # Log-spaced grids; decays are divided by the rate, and 0 is tried as well.
  evaluation.finetune.rate_range = (1e-4, 0.1)  # [P] D.3, as are the others.
  evaluation.finetune.rate_count = 7
  evaluation.finetune.decay_range = (1e-6, 1e-3)
  evaluation.finetune.decay_count = 7
  evaluation.finetune.steps = 20_000
  evaluation.finetune.batch_size = 256
  return evaluation


def default_config() -> Config:
  """Returns the paper's 1000-epoch ResNet-50 run on ImageNet, locked.

  Overriding a key that is not here raises an error that names the close ones.
  """
  config: Config = config_dict.ConfigDict()
  config.seed = 0  # Decides initial weights, data order and augmentations.

  config.data = config_dict.ConfigDict()
  # A name in `datasets.DATASETS`; tfds:NAME for any that tfds knows; folder.
  config.data.dataset = "imagenet2012"
  config.data.data_dir = ""  # Empty: tfds' own default, ~/tensorflow_datasets.
  # Of dataset=folder: where it is; whether its sub-folders are classes, or
  # none; what is held out for testing where it has no folders train and test;
  # and which share of its files may be broken before that is an error.
  config.data.root = ""
  config.data.labels = "folders"
  config.data.test_share = 0.1
  config.data.max_broken = 0.05
  config.data.image_size = 224  # Pixels, square; 0: as the images are. [P] 3
  config.data.channels = 3  # Or 1: views are grey.
  # Evaluation sees this share of the short side, from the centre: 224 of 256.
  config.data.eval_crop = 0.875  # [P] 3
  # Normalisation, done inside the network; (): the data set's own. These are
  # ImageNet's ([C] utils/dataset.py, for every data set there).
  config.data.mean = (0.485, 0.456, 0.406)
  config.data.std = (0.229, 0.224, 0.225)
  # Undecoded examples among which an epoch is shuffled, and their bytes at most;
  # ImageNet's have 110 kB each. [C] draws from ten batches of 4096.
  config.data.shuffle_buffer = 16_384
  config.data.shuffle_bytes = 2_000_000_000
  # A split whose undecoded examples take no more bytes is held in memory and
  # shuffled perfectly instead. 0: never.
  config.data.cache_bytes = 2_000_000_000
  # Of the split, read and shuffled independently: 0, one a process. Runs with as
  # many see the same batches.
  config.data.parts = 0
  config.data.threads = 0  # That decode and augment; 0: one a core.
  config.data.prefetch = 0  # Batches made ahead; 0: as tf.data finds useful.

  config.augment = config_dict.ConfigDict()
  # Where colours are changed, blurred and solarised: host, by tf.data, or
  # device, inside the update, which then gets uint8 crops.
  config.augment.placement = "host"
  config.augment.view1 = _view()
  config.augment.view2 = _view()
  config.augment.view2.blur_prob = 0.1  # [P] table 6, T'
  config.augment.view2.solarize_prob = 0.2  # [P] table 6, T'

  config.model = config_dict.ConfigDict()
  config.model.encoder = config_dict.ConfigDict()
  config.model.encoder.name = "ResNet50"  # A name in `encoders.ENCODERS`.
  config.model.encoder.width = 1.0  # Multiplies every channel count.
  config.model.encoder.version = "v1"  # v1: post-activation, v2: pre-. [P] 3.2
  # imagenet: 7x7 stride 2 and a max-pool; cifar: 3x3 stride 1, for small images;
  # auto: by the image size.
  config.model.encoder.stem = "imagenet"
  config.model.encoder.pooling = "mean"  # Or flatten: keeps where things are.
  # Start the last scale of each residual block at 0 instead of the paper's 1;
  # more stable, slightly worse for very large networks ([C] README).
  config.model.encoder.zero_init_last_scale = False
  config.model.projector = config_dict.ConfigDict()
  config.model.projector.layers = 2  # [P] 3.2
  config.model.projector.hidden_size = 4096  # [P] 3.2
  config.model.projector.output_size = 256  # [P] 3.2
  config.model.predictor = config_dict.ConfigDict()
  config.model.predictor.layers = 2  # [P] 3.2
  config.model.predictor.hidden_size = 4096  # [P] 3.2
  config.model.batch_norm = config_dict.ConfigDict()
  config.model.batch_norm.decay_rate = 0.9  # [C] configs/byol.py
  config.model.batch_norm.eps = 1e-5  # [C] configs/byol.py

  config.ema = config_dict.ConfigDict()
  config.ema.schedule = "cosine"  # Or constant. [P] 3.2
  config.ema.base = 0.996  # tau at step 0. [P] 3.2
  # Keep the half-life in images that `base` has at `base_batch_size`, whatever
  # train.batch_size is (arXiv 2307.13813). [C] does not.
  config.ema.scale_with_batch = False
  config.ema.base_batch_size = 4096  # [P] 3.2

  config.optimizer = config_dict.ConfigDict()
  config.optimizer.name = "lars"  # A name in `optimizers.OPTIMIZERS`.
  config.optimizer.base_learning_rate = 0.2  # At batch 256; scales with it. [P]
  config.optimizer.weight_decay = 1.5e-6  # [P] 3.2
  config.optimizer.momentum = 0.9  # [C] configs/byol.py
  config.optimizer.trust_coefficient = 1e-3  # LARS only. [C] configs/byol.py
  config.optimizer.warmup_epochs = 10.0  # [P] 3.2

  config.train = config_dict.ConfigDict()
  config.train.batch_size = 4096  # Over all devices. [P] 3.2
  config.train.epochs = 1000  # [P] 3.2
  config.train.steps = config_dict.placeholder(
    int
  )  # Overrides epochs when set.
  # Parts that an update takes the batch in, for machines with little memory.
  # Gradients are averaged; batch norm sees a part at a time. [P] 5, batch size
  config.train.microbatches = 1
  # Of convolutions and linear layers: float32 or bfloat16. Parameters,
  # statistics, losses and the optimizer stay float32.
  config.train.precision = "float32"
  # Compute each residual block again for its gradient, to save memory.
  config.train.remat = False
  # Steps between checks that all devices hold the same state, which cost a pass
  # over it each; 0: at the first and the last only. Our choice.
  config.train.check_replicas_every = 1000
  # One of several processes that makes no step for so long ends them all; longer
  # than any wait for data or disk should be, our choice. 0: never.
  config.train.hang_seconds = 600
  # Compiled programs are kept here between runs; empty switches it off.
  config.train.compilation_cache = "~/.cache/byol_jax"

  config.evaluation = _evaluation()

  config.checkpoint = config_dict.ConfigDict()
  config.checkpoint.every_seconds = 300  # 0: never. [C] configs/byol.py
  config.checkpoint.every_steps = 0  # 0: never.
  config.checkpoint.keep = 3  # The newest ones.

  config.log = config_dict.ConfigDict()
  config.log.every_steps = 10
  config.lock()
  return config


def preset(presets: dict[str, Any], name: str) -> Any:
  """The preset of that name; `UserError` listing the known ones if unknown."""
  if name not in presets:
    raise errors.unknown_name("preset", name, presets)
  return presets[name]


def small_grey_config() -> Config:
  """Returns a run for grey images of about 28 pixels, locked.

  The augmentations are those that leave such an image what it is: crops,
  brightness, contrast. Heads and schedule are a small machine's.
  """
  config = default_config()
  config.data.image_size = 28
  config.data.eval_crop = 1.0
  config.data.mean = ()
  config.data.std = ()
  for view in (config.augment.view1, config.augment.view2):
    view.crop_area = (0.3, 1.0)
    view.flip_prob = 0.0
    view.saturation = 0.0
    view.hue = 0.0
    view.grayscale_prob = 0.0
    view.blur_prob = 0.0
    view.solarize_prob = 0.0
  config.model.encoder.name = "ResNet18"
  config.model.encoder.stem = "cifar"
  config.model.encoder.pooling = "flatten"  # Where a stroke is matters.
  config.model.projector.hidden_size = 256
  config.model.projector.output_size = 64
  config.model.predictor.hidden_size = 256
  config.ema.base = 0.99
  config.optimizer.name = "sgd"
  config.optimizer.base_learning_rate = 0.3
  config.optimizer.weight_decay = 1e-6
  config.optimizer.warmup_epochs = 1.0
  config.train.batch_size = 256
  config.train.epochs = 20
  evaluation = config.evaluation
  # Milder than pretraining's: centre crops are what is judged (Fashion-MNIST's
  # held-out training images, fine-tuned: 0.865 in 400 steps, and 0.840 in 300
  # from an area of 0.3 on).
  evaluation.view.crop_area = (0.7, 1.0)
  evaluation.view.flip_prob = 0.0
  # Minutes instead of hours: features are made once, and grids are coarse.
  evaluation.linear.crops = "centre"
  evaluation.linear.learning_rates = (0.1, 0.2, 0.4, 0.8, 1.6)
  evaluation.linear.batch_size = 64
  evaluation.logistic.l2_range = (1.0, 1e3)
  evaluation.logistic.l2_count = 4
  evaluation.semi_supervised.learning_rates = (0.1, 0.02)
  evaluation.semi_supervised.epochs = (50.0,)
  evaluation.semi_supervised.batch_size = 256
  evaluation.finetune.rate_range = (0.01, 0.1)
  evaluation.finetune.rate_count = 2
  evaluation.finetune.decay_count = 0
  evaluation.finetune.steps = 500
  return config


def _require(condition: bool, message: str) -> None:
  if not condition:
    raise errors.UserError(message)


def _check_view(key: str, view: Config) -> None:
  """Raises `UserError` if a view's probabilities or ranges make no sense."""
  for name in (
    "flip_prob",
    "jitter_prob",
    "grayscale_prob",
    "blur_prob",
    "solarize_prob",
  ):
    _require(
      0 <= view[name] <= 1, f"{key}.{name}={view[name]} must lie in [0, 1]."
    )
  for name, limit in (
    ("brightness", 1),
    ("contrast", 1),
    ("saturation", 1),
    ("hue", 0.5),
  ):
    _require(
      0 <= view[name] <= limit,
      f"{key}.{name}={view[name]} must lie in [0, {limit}].",
    )
  _check_range(f"{key}.crop_area", view.crop_area, most=1)
  _check_range(f"{key}.crop_aspect", view.crop_aspect)
  _check_range(f"{key}.blur_sigma", view.blur_sigma)


def _check_range(key: str, value: Any, most: float = float("inf")) -> None:
  """Raises `UserError` unless 0 < low <= high <= most."""
  rule = "0 < low <= high" + (f" <= {most}" if most < float("inf") else "")
  _require(
    len(value) == 2 and 0 < value[0] <= value[1] <= most,
    f"{key}={value} must be (low, high) with {rule}.",
  )


def _check_evaluation(evaluation: Config) -> None:
  """Raises `UserError` for grids and shares that cannot work."""
  for key, value in (
    ("logistic.l2_range", evaluation.logistic.l2_range),
    ("finetune.rate_range", evaluation.finetune.rate_range),
    ("finetune.decay_range", evaluation.finetune.decay_range),
    ("view.crop_aspect", evaluation.view.crop_aspect),
  ):
    _check_range(f"evaluation.{key}", value)
  _check_range("evaluation.view.crop_area", evaluation.view.crop_area, most=1)
  flip = evaluation.view.flip_prob
  _require(
    0 <= flip <= 1, f"evaluation.view.flip_prob={flip} must lie in [0, 1]."
  )
  _require(
    evaluation.dataset == "folder" or not evaluation.root,
    f"evaluation.root={evaluation.root} needs evaluation.dataset=folder.",
  )
  holdout = evaluation.holdout
  _require(
    0 < holdout < 1, f"evaluation.holdout={holdout} must lie between 0 and 1."
  )
  crops = evaluation.linear.crops
  _require(
    crops in ("random", "centre"),
    f"evaluation.linear.crops={crops} must be random or centre.",
  )
  for key, values in (
    ("linear.learning_rates", evaluation.linear.learning_rates),
    ("semi_supervised.labels", evaluation.semi_supervised.labels),
    (
      "semi_supervised.learning_rates",
      evaluation.semi_supervised.learning_rates,
    ),
    ("semi_supervised.epochs", evaluation.semi_supervised.epochs),
  ):
    _require(
      len(values) > 0 and min(values) > 0,
      f"evaluation.{key}={values} must be numbers above 0, at least one.",
    )


def validate(config: Config) -> None:
  """Raises `UserError` for the first value that cannot work whatever the data.

  Names in registries (encoder, data set, optimizer, protocols) are checked by
  their registries, the batch against the devices by `parallel`.
  """
  positive = (
    "data.shuffle_buffer",
    "data.shuffle_bytes",
    "model.encoder.width",
    "model.projector.layers",
    "model.projector.hidden_size",
    "model.projector.output_size",
    "model.predictor.layers",
    "model.predictor.hidden_size",
    "model.batch_norm.eps",
    "optimizer.trust_coefficient",
    "ema.base_batch_size",
    "train.batch_size",
    "train.epochs",
    "train.microbatches",
    "evaluation.batch_size",
    "evaluation.knn.k",
    "evaluation.knn.temperature",
    "evaluation.retrieval.k",
    "evaluation.linear.epochs",
    "evaluation.linear.batch_size",
    "evaluation.logistic.l2_count",
    "evaluation.semi_supervised.batch_size",
    "evaluation.finetune.rate_count",
    "evaluation.finetune.steps",
    "evaluation.finetune.batch_size",
    "checkpoint.keep",
    "log.every_steps",
  )
  not_negative = (
    "seed",
    "data.image_size",
    "data.cache_bytes",
    "data.parts",
    "data.threads",
    "data.prefetch",
    "evaluation.finetune.decay_count",
    "optimizer.base_learning_rate",
    "optimizer.weight_decay",
    "optimizer.warmup_epochs",
    "checkpoint.every_seconds",
    "checkpoint.every_steps",
  )
  for key in positive:
    value = value_at(config, key)
    _require(value > 0, f"{key}={value} must be above 0.")
  for key in not_negative:
    value = value_at(config, key)
    _require(value >= 0, f"{key}={value} must not be negative.")
  _require(
    config.train.steps is None or config.train.steps > 0,
    f"train.steps={config.train.steps} must be above 0, or unset to use train.epochs.",
  )
  for key in ("optimizer.momentum", "model.batch_norm.decay_rate"):
    value = value_at(config, key)
    _require(0 <= value < 1, f"{key}={value} must lie in [0, 1).")
  crop = config.data.eval_crop
  _require(0 < crop <= 1, f"data.eval_crop={crop} must lie in (0, 1].")
  _require(
    0 <= config.ema.base <= 1, f"ema.base={config.ema.base} must lie in [0, 1]."
  )
  _require(config.seed < 2**32, f"seed={config.seed} must be below 2**32.")
  channels = config.data.channels
  _require(channels in (1, 3), f"data.channels={channels} must be 1 or 3.")
  for key in ("data.mean", "data.std"):
    value = value_at(config, key)
    _require(
      len(value) in (0, channels),
      f"{key}={value} must be one number a channel ({channels}), or () for the"
      " data set's own.",
    )
  _require(
    min(config.data.std, default=1) > 0,
    f"data.std={config.data.std} must be above 0.",
  )
  for key in ("data.test_share", "data.max_broken"):
    value = value_at(config, key)
    _require(0 <= value < 1, f"{key}={value} must lie in [0, 1).")
  placement = config.augment.placement
  _require(
    placement in ("host", "device"),
    f"augment.placement={placement!r} must be host or device.",
  )
  _check_evaluation(config.evaluation)
  _check_view("augment.view1", config.augment.view1)
  _check_view("augment.view2", config.augment.view2)


def value_at(config: Config, key: str) -> Any:
  """The value at a dotted key."""
  for part in key.split("."):
    config = config[part]
  return config
