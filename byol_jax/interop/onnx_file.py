"""The encoder as an ONNX model, built layer by layer from torchvision's names."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from byol_jax.config import schema
from byol_jax.models import convolution

# Our choice: versions of 2022, which every maintained runtime reads; later ones
# change nothing that a ResNet needs.
_OPSET, _IR = 17, 8

Size = tuple[int, int]  # Rows and columns of a map.


def serialized(
  arrays: Mapping[str, np.ndarray],
  config: schema.Config,
  metadata: Mapping[str, str],
) -> bytes:
  """Returns a model from images as bytes to features, for any ONNX runtime.

  It maps `images`, [B, H, W, C] uint8, to `features`, [B, D] float32, for any B,
  normalises the images and holds the parameters.

  Args:
    arrays: from `torch_names.to_torch`.
    config: the resolved configuration of the run.
    metadata: is kept in the model's properties.
  """
  from onnx import TensorProto, helper

  data = config.data
  graph = _Graph(arrays, config)
  features = graph.encoder("images", schema.image_shape(data))
  model = helper.make_model(
    helper.make_graph(
      graph.nodes,
      "encoder",
      [
        helper.make_tensor_value_info(
          "images",
          TensorProto.UINT8,
          ["batch", *schema.image_shape(data), data.channels],
        )
      ],
      [
        helper.make_tensor_value_info(
          features, TensorProto.FLOAT, ["batch", "features"]
        )
      ],
      graph.constants,
    ),
    opset_imports=[helper.make_opsetid("", _OPSET)],
    ir_version=_IR,
    producer_name="byol_jax",
  )
  helper.set_model_props(model, dict(metadata))
  return model.SerializeToString()


def _after(size: Size, stride: int) -> Size:
  """Returns rows and columns after a layer of a stride."""
  rows, columns = (-(-length // stride) for length in size)
  return rows, columns


class _Graph:
  """The nodes of a ResNet; each method adds some and returns their output.

  Attributes:
    nodes: in the order of computation.
    constants: parameters and statistics.
  """

  def __init__(self, arrays: Mapping[str, np.ndarray], config: schema.Config):
    self.nodes: list[Any] = []
    self.constants: list[Any] = []
    self._arrays = arrays
    self._config = config

  def encoder(self, images: str, size: Size) -> str:
    """Adds the whole network; its output is called `features`."""
    data, options = self._config.data, self._config.model.encoder
    from onnx import TensorProto

    x = self._add("Cast", images, to=TensorProto.FLOAT)
    # (x / 255 - mean) / std
    std = np.asarray(data.std, np.float32)
    x = self._add("Div", x, self._constant("range", 255 * std))
    x = self._add("Sub", x, self._constant("shift", data.mean / std))
    x = self._add("Transpose", x, perm=[0, 3, 1, 2])
    is_imagenet = options.stem == "imagenet"
    x, size = self._conv(x, size, "conv1", 2 if is_imagenet else 1)
    x = self._add("Relu", self._norm(x, "bn1"))
    if is_imagenet:
      pads = self._pads(size, 3, 2)
      x = self._add(
        "MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=pads
      )
      size = _after(size, 2)
    for group in (1, 2, 3, 4):
      place = f"layer{group}."
      names = {n.split(".")[1] for n in self._arrays if n.startswith(place)}
      for i in range(len(names)):
        stride = 2 if group > 1 and i == 0 else 1
        x, size = self._block(x, size, f"{place}{i}", stride)
    if options.pooling == "mean":
      x = self._add("GlobalAveragePool", x)
    else:
      x = self._add("Transpose", x, perm=[0, 2, 3, 1])
    return self._add("Flatten", x, output="features")

  def _block(
    self, x: str, size: Size, place: str, stride: int
  ) -> tuple[str, Size]:
    shortcut, y = x, x
    if f"{place}.downsample.0.weight" in self._arrays:
      shortcut, _ = self._conv(x, size, f"{place}.downsample.0", stride)
      shortcut = self._norm(shortcut, f"{place}.downsample.1")
    is_bottleneck = f"{place}.conv3.weight" in self._arrays
    strides = (1, stride, 1) if is_bottleneck else (stride, 1)
    for i, of_layer in enumerate(strides, start=1):
      y, size = self._conv(y, size, f"{place}.conv{i}", of_layer)
      y = self._norm(y, f"{place}.bn{i}")
      if i == len(strides):
        y = self._add("Add", y, shortcut)
      y = self._add("Relu", y)
    return y, size

  def _conv(
    self, x: str, size: Size, name: str, stride: int
  ) -> tuple[str, Size]:
    w = self._arrays[f"{name}.weight"]
    y = self._add(
      "Conv",
      x,
      self._constant(f"{name}.weight", w),
      strides=[stride, stride],
      pads=self._pads(size, w.shape[2], stride),
    )
    return y, _after(size, stride)

  def _norm(self, x: str, name: str) -> str:
    leaves = ("weight", "bias", "running_mean", "running_var")
    names = (f"{name}.{leaf}" for leaf in leaves)
    constants = [self._constant(n, self._arrays[n]) for n in names]
    eps = self._config.model.batch_norm.eps
    return self._add("BatchNormalization", x, *constants, epsilon=eps)

  def _pads(self, size: Size, kernel: int, stride: int) -> list[int]:
    """Returns the padding before rows and columns, then that after them."""
    is_same = self._config.model.encoder.padding == "same"
    padding = "SAME" if is_same else convolution.symmetric(kernel)
    pads = convolution.pixels_around(size, kernel, stride, padding)
    return [before for before, _ in pads] + [after for _, after in pads]

  def _add(self, op: str, *inputs: str, output: str = "", **attributes) -> str:
    from onnx import helper

    output = output or f"{op}_{len(self.nodes)}"
    self.nodes.append(helper.make_node(op, inputs, [output], **attributes))
    return output

  def _constant(self, name: str, value: Any) -> str:
    from onnx import numpy_helper

    array = np.ascontiguousarray(value, np.float32)
    self.constants.append(numpy_helper.from_array(array, name))
    return name
