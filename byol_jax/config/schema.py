"""Every key of the configuration with its type, its default and its source.

`presets.default_config` makes a `ConfigDict` of it, which experiments and flags
edit; `convert.typed` turns the result into these dataclasses again. Only base
values live here. Scaled learning rates, step counts and per-device batches are
derived in code, so that an override never leaves a stale number. The keys of
evaluations are in `evaluation_schema`, those of the loss in `loss_schema`, those of
a view in `augment.spec`.

[P] is Grill et al. 2020 (arXiv 2006.07733v3), [C] deepmind-research/byol.
"""

import dataclasses
from dataclasses import field

from byol_jax.augment import spec
from byol_jax.config.evaluation_schema import EvaluationConfig
from byol_jax.config.loss_schema import LossConfig

# Values of data.labels that are no path of a CSV file.
LABELS = ("folders", "none")


@dataclasses.dataclass(slots=True)
class DataConfig:
  """The images, and how they are read."""

  # A name in `data.registry.DATASETS`; tfds:NAME for any that tfds knows; folder;
  # arrays, a file of decoded images.
  dataset: str = "imagenet2012"
  # What is pretrained on: a split expression of tfds, such as train[:10%]; empty:
  # the data set's own. Of it, the first fraction; evaluations ignore both keys.
  split: str = ""
  fraction: float = 1.0
  data_dir: str = ""  # Empty: the default of tfds, ~/tensorflow_datasets.
  # For dataset=arrays: the path of the file, `data.array_file`.
  # For dataset=folder: its path, or that of a text file that lists images; what
  # the labels are: sub-folders (folders), those of a CSV file (its path) or none;
  # the fraction of each class held out for testing where there is no test split;
  # and the largest fraction of files that may be broken.
  root: str = ""
  labels: str = "folders"
  test_share: float = 0.1
  max_broken: float = 0.05
  image_size: int = 224  # Height of a view, pixels; 0: from the images. [P] 3
  image_width: int = 0  # Pixels; 0: as image_size, for square views.
  channels: int = 3  # Or 1: views are grey. Others for dataset=arrays only.
  # Evaluation crops this fraction of the sides of the largest region of a view's aspect,
  # from the centre: of the short side for square views, 224 of 256.
  eval_crop: float = 0.875  # [P] 3
  # Normalisation, done inside the network; (): the data set's own. The defaults
  # are ImageNet's ([C] utils/dataset.py, for every data set there).
  mean: tuple[float, ...] = (0.485, 0.456, 0.406)
  std: tuple[float, ...] = (0.229, 0.224, 0.225)
  # Undecoded examples among which an epoch is shuffled, and their bytes at most;
  # an image of ImageNet has 110 kB. [C] draws from ten batches of 4096.
  shuffle_buffer: int = 16_384
  shuffle_bytes: int = 2_000_000_000
  # A split whose undecoded examples take at most this many bytes is held in
  # memory and shuffled perfectly instead. 0: never.
  cache_bytes: int = 2_000_000_000
  # Where the images are: host, which decodes them for each batch, or device,
  # which holds all of them decoded. Then a step needs nothing from the host.
  placement: str = "host"
  # Shards of the split that are read and shuffled independently; 0: one per
  # process. Runs with the same number see the same batches.
  parts: int = 0
  # Train on a copy of the images, made once, whose short sides have at most so many
  # pixels; 0: on the images themselves. As jpeg, or raw, which takes more space and
  # no decoding.
  copy_side: int = 0
  copy_format: str = "jpeg"
  # Decode JPEGs at 1/2, 1/4 or 1/8 of their size for training, as long as the short
  # side keeps so many pixels; 0: never.
  decode_side: int = 0
  threads: int = 0  # For decoding and augmenting; 0: one per core.
  prefetch: int = 0  # Batches made ahead; 0: tf.data decides.


def image_shape(data: DataConfig) -> tuple[int, int]:
  """Returns height and width of a view in pixels.

  It is no property, since a `ConfigDict` in the place of `data` would lack it.
  """
  return data.image_size, data.image_width or data.image_size


@dataclasses.dataclass(slots=True)
class AugmentConfig:
  """The two views of an image; the keys of a view are in `augment.spec.View`."""

  # Where colours are changed, blurred and solarised: host, by tf.data, or
  # device, inside the update, which then takes uint8 crops.
  placement: str = "host"
  # Changes of the keys of both views, by a name in `augment.presets.PRESETS`; keys on
  # the command line win. A run replaces the name by the values.
  preset: str = ""
  view1: spec.View = field(default_factory=spec.View)
  view2: spec.View = field(  # [P] table 6, T'
    default_factory=lambda: spec.View(blur_prob=0.1, solarize_prob=0.2)
  )


@dataclasses.dataclass(slots=True)
class EncoderConfig:
  """The part of the network that is kept after training."""

  name: str = "ResNet50"  # In `models.encoders.ENCODERS`; auto: init_from's.
  # What pretraining starts from, see `interop.weights`: an encoder file, a workdir,
  # a torchvision or timm ResNet, a .pkl of the reference; empty: random weights.
  init_from: str = ""
  width: float = 1.0  # Multiplies every channel count.
  # ViT and ConvNeXt: the side of the first patches in pixels; 0: by the stem, for
  # imagenet 16 and 4, for cifar 4 and 2.
  patch: int = 0
  version: str = "v1"  # v1: post-activation, v2: pre-activation. [P] 3.2
  # imagenet: 7x7 stride 2 and a max-pool; cifar: 3x3 stride 1, for small images;
  # auto: by the image size. Of ViT and ConvNeXt, it decides the patch.
  stem: str = "imagenet"
  # Where layers of stride 2 add zeros: same, most of them at the end, as TensorFlow
  # and [C]; torch, as many on both sides, as PyTorch's ResNets.
  padding: str = "same"
  pooling: str = "mean"  # Or flatten, which keeps positions.
  # Start the last scale of each residual block at 0 instead of the paper's 1;
  # more stable, slightly worse for very large networks ([C] README).
  zero_init_last_scale: bool = False
  # batch; group, with standardised weights (arXiv 2010.10241); layer; none. A name in
  # `models.norms.NORMS`. ViT and ConvNeXt have layer norm, whatever it is.
  norm: str = "batch"


@dataclasses.dataclass(slots=True)
class ProjectorConfig:
  """The MLP on the encoder."""

  layers: int = 2  # [P] 3.2
  hidden_size: int = 4096  # [P] 3.2
  output_size: int = 256  # Of the predictor, too. [P] 3.2
  norm: str = "batch"  # As model.encoder.norm; weights are never standardised.


@dataclasses.dataclass(slots=True)
class PredictorConfig:
  """The predictor on the online network's projector."""

  # mlp; none; closed_form, the linear predictor that is best for each batch; or
  # direct_pred (arXiv 2102.06810). A name in `models.predictors.PREDICTORS`.
  kind: str = "mlp"
  layers: int = 2  # [P] 3.2
  hidden_size: int = 4096  # [P] 3.2
  norm: str = "batch"  # As model.projector.norm.
  # closed_form only: the regularisation, in mean eigenvalues of the projections' second
  # moment. Our choice: float32 solves a system of this condition to three digits.
  ridge: float = 1e-4


@dataclasses.dataclass(slots=True)
class BatchNormConfig:
  """Batch norm in the encoder and in the heads."""

  decay_rate: float = 0.9  # Of the running statistics. [C] configs/byol.py
  eps: float = 1e-5  # [C] configs/byol.py
  # Devices whose images share statistics, neighbours; 0: all, as in the paper.
  # Groups need fewer exchanges, and change the result.
  group_size: int = 0
  # What values are normalised in: float32, or bfloat16, which rounds them more
  # often. Statistics are float32 anyway. No effect with train.precision=float32.
  precision: str = "float32"


@dataclasses.dataclass(slots=True)
class ModelConfig:
  """The network."""

  encoder: EncoderConfig = field(default_factory=EncoderConfig)
  projector: ProjectorConfig = field(default_factory=ProjectorConfig)
  predictor: PredictorConfig = field(default_factory=PredictorConfig)
  batch_norm: BatchNormConfig = field(default_factory=BatchNormConfig)


@dataclasses.dataclass(slots=True)
class EmaConfig:
  """How the target network follows the online network."""

  schedule: str = "cosine"  # A name in `learning.target.TAU_SCHEDULES`. [P] 3.2
  base: float = 0.996  # tau at step 0. [P] 3.2
  # Instead of `base`: the images in which the target forgets half of its past at
  # step 0, whatever train.batch_size is; 0: as `base` says.
  half_life: float = 0.0
  # Keep the half-life in images that `base` has at `base_batch_size`, whatever
  # train.batch_size is (arXiv 2307.13813). [C] does not.
  scale_with_batch: bool = False
  base_batch_size: int = 4096  # [P] 3.2
  # Start the target as a copy of the online network, as in [P]'s pseudo-code, instead
  # of from random weights of its own, as in [C].
  same_start: bool = False
  # Let the target's batch norm use an average of the online network's statistics
  # (EMAN, arXiv 2101.08482) instead of those of the batch.
  average_statistics: bool = False


@dataclasses.dataclass(slots=True)
class OptimizerConfig:
  """How the online network is trained."""

  name: str = "lars"  # A name in `learning.optimizers.OPTIMIZERS`.
  # How the rate falls after the warm-up; a name in `learning.schedules.DECAYS`.
  schedule: str = "cosine"  # [P] 3.2
  base_learning_rate: float = 0.2  # At batch 256; scales with the batch. [P]
  weight_decay: float = 1.5e-6  # [P] 3.2
  momentum: float = 0.9  # [C] configs/byol.py; the first beta of Adam and Lion.
  trust_coefficient: float = 1e-3  # LARS only. [C] configs/byol.py
  warmup_epochs: float = 10.0  # [P] 3.2
  clip: float = 0.0  # The gradient's norm over all parameters at most; 0: off.
  # Multiply the learning rate of the heads. [P] tables 21, 22
  projector_rate: float = 1.0
  predictor_rate: float = 1.0


@dataclasses.dataclass(slots=True)
class TrainConfig:
  """Batches, length and precision of pretraining."""

  batch_size: int = 4096  # Over all devices. [P] 3.2
  epochs: int = 1000  # [P] 3.2
  steps: int | None = None  # Overrides epochs when set.
  # Parts in which an update processes its batch, for machines with little memory.
  # Gradients are averaged; batch norm sees one part at a time. [P] 5, batch size
  microbatches: int = 1
  # The type in which convolutions and linear layers compute: float32 or bfloat16.
  # Parameters, statistics, losses and the optimizer stay float32.
  precision: str = "float32"
  # Recompute each residual block for its gradient, to save memory.
  remat: bool = False
  # Steps between checks that all devices hold the same state, each of which costs
  # a pass over it; 0: at the first and the last step only. Our choice.
  check_replicas_every: int = 1000
  # Seconds after which a process that makes no step, or waits for a part of an
  # evaluation, ends a run of several processes; six times as many for the first
  # step, which compiles. Our choice: longer than any wait for data or disk. 0: never.
  hang_seconds: int = 600
  # Folder of compiled programs, kept between runs; empty switches it off.
  compilation_cache: str = "~/.cache/byol_jax"


@dataclasses.dataclass(slots=True)
class CheckpointConfig:
  """When the state is saved."""

  every_seconds: int = 300  # 0: never. [C] configs/byol.py
  every_steps: int = 0  # 0: never.
  keep: int = 3  # The newest ones.
  keep_every: int = 0  # Save at every multiple, and never delete it. 0: none.
  # Save, and keep beside the newest, the one in which the most examples of
  # evaluation.every_epochs have the right neighbours.
  keep_best: bool = False


@dataclasses.dataclass(slots=True)
class LogConfig:
  """What is told, when metrics are written, and where to."""

  # What the program prints beside errors: info, all it does, its progress and results;
  # warning, only what may be wrong; error, nothing. For the whole process.
  level: str = "info"
  every_steps: int = 10
  # Beside metrics.jsonl: names in `training.outputs`: tensorboard, wandb, mlflow.
  writers: tuple[str, ...] = ("tensorboard",)
  # Diagnose the health of training: at the first step, every so many steps and
  # at the end. 0 steps: as often as takes 2% of the time, our choice.
  diagnose: bool = True
  diagnose_every: int = 0


@dataclasses.dataclass(slots=True)
class ExportConfig:
  """What `--mode=export` writes."""

  formats: tuple[str, ...] = ("haiku",)  # Names in `interop.exports.FORMATS`.
  # Of the weights, for the card of format hub, such as cc-by-4.0; empty: unknown.
  licence: str = ""


@dataclasses.dataclass(slots=True)
class Config:
  """The paper's 1000-epoch run of ResNet-50 on ImageNet."""

  seed: int = 0  # Decides initial weights, data order and augmentations.
  data: DataConfig = field(default_factory=DataConfig)
  augment: AugmentConfig = field(default_factory=AugmentConfig)
  model: ModelConfig = field(default_factory=ModelConfig)
  loss: LossConfig = field(default_factory=LossConfig)
  ema: EmaConfig = field(default_factory=EmaConfig)
  optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
  train: TrainConfig = field(default_factory=TrainConfig)
  evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
  export: ExportConfig = field(default_factory=ExportConfig)
  checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
  log: LogConfig = field(default_factory=LogConfig)
