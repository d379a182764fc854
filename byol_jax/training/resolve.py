"""The values that a configuration leaves open, to a preset, the data or the machine."""

import jax

from byol_jax import errors
from byol_jax.augment import spec
from byol_jax.config import convert, presets, schema
from byol_jax.data.images import check_channels
from byol_jax.data.source import Source

# Images with a short side of up to the first number are viewed at the second,
# sizes that the field trains at. Larger images are viewed at the paper's 224.
_IMAGE_SIZES = ((40, 32), (80, 64), (128, 96), (192, 160))
_LARGEST_IMAGE_SIZE = 224

# The stride and max-pool of ImageNet's stem leave too little of smaller images;
# at 64 pixels (Tiny ImageNet) solo-learn drops them, at 96 (STL-10) it does not.
_CIFAR_STEM_UP_TO = 64


def resolved(
  config: schema.Config, source: Source, parts: int | None
) -> schema.Config:
  """Returns the configuration with no value left open.

  Args:
    config: may leave image size, mean, std, stem and `data.parts` open, and name
      a preset of the views, whose values then count.
    source: the data set that decides image size, mean and std.
    parts: `data.parts` of the run so far; None for a new run, which takes one
      part per process, or one with `data.placement=device`.

  Raises:
    UserError: if `augment.preset` is unknown, or the parts of the run so far do
      not suit its settings now.
  """
  config = convert.typed(presets.with_augment_preset(config))
  data, encoder = config.data, config.model.encoder
  on_device = data.placement == "device"
  data.parts = data.parts or parts or (1 if on_device else jax.process_count())
  if on_device and data.parts > 1:
    raise errors.UserError(
      f"data.parts={data.parts} must be 1 with data.placement=device; set"
      " --config.data.placement=host, or start another run in another workdir."
    )
  if not (data.image_size and data.mean and data.std):
    own = source.dataset.statistics or source.measure()
    data.image_size = data.image_size or _image_size(own.side)
    data.mean = data.mean or _per_channel(own.mean, data.channels)
    data.std = data.std or _per_channel(own.std, data.channels)
  if data.image_width == data.image_size:
    data.image_width = 0  # The same square views.
  if data.channels not in (1, 3):
    views = config.augment
    views.view1, views.view2 = map(
      spec.without_colours, (views.view1, views.view2)
    )
  if encoder.stem == "auto":
    small = min(schema.image_shape(data)) <= _CIFAR_STEM_UP_TO
    encoder.stem = "cifar" if small else "imagenet"
  return config


def _image_size(side: int) -> int:
  """Returns the size of views for images with a short side of `side` pixels."""
  return next(
    (size for limit, size in _IMAGE_SIZES if side <= limit),
    _LARGEST_IMAGE_SIZE,
  )


def _per_channel(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
  """Returns the values of all channels, or their mean for grey images."""
  check_channels(len(values), channels)
  if channels > 1:
    return values
  return (round(sum(values) / len(values), 4),)
