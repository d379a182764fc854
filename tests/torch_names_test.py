"""Arrays keep their values under torchvision's names and in its layouts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from byol_jax import config, errors
from byol_jax.config import convert
from byol_jax.interop import torch_names
from byol_jax.training import build
from tests.torch_cases import needs_extra


def shapes(name, width=1.0, version="v1"):
  """The shapes and types of an encoder's arrays, by their names in a file."""
  settings = convert.typed(config.default_config())
  settings.model.encoder.name = name
  settings.model.encoder.width = width
  settings.model.encoder.version = version
  encoder = build.build_encoder(settings)
  params, state = jax.eval_shape(
    lambda key: encoder.init(key, jnp.zeros((1, 64, 64, 3)), is_training=True),
    jax.random.key(0),
  )
  return {
    f"{kind}/{module}/{leaf}": x
    for kind, tree in (("params", params), ("state", state))
    for module, leaves in tree.items()
    for leaf, x in leaves.items()
  }


def drawn(of_encoder):
  """Random arrays, with running statistics as an import leaves them."""
  random = np.random.default_rng(0)
  arrays = {}
  for name, x in sorted(of_encoder.items()):  # average is before hidden.
    if name.endswith("/counter"):
      arrays[name] = np.asarray(2**20, np.int32)
    elif name.endswith("/hidden"):
      arrays[name] = arrays[name.removesuffix("hidden") + "average"]
    else:
      arrays[name] = random.standard_normal(x.shape, np.float32)
  return arrays


@pytest.mark.parametrize(
  ("name", "width"),
  [("TinyResNet", 0.25), ("ResNet18", 2.0), ("ResNet50", 0.5)],
)
def test_there_and_back_is_the_same_bit_for_bit(name, width):
  ours = drawn(shapes(name, width))
  theirs = torch_names.to_torch(ours)
  extra = {
    "fc.weight": np.zeros((1000, 8)),
    "bn1.num_batches_tracked": np.zeros(()),
  }
  root = next(iter(ours)).split("/")[1]
  back = torch_names.from_torch(theirs | extra, root)
  assert back.left_out == tuple(extra)
  assert back.added == ()
  assert back.arrays.keys() == ours.keys()
  for key, array in back.arrays.items():
    assert array.dtype == ours[key].dtype
    np.testing.assert_array_equal(array, ours[key], err_msg=key)


@needs_extra
@pytest.mark.parametrize("depth", [18, 50, 200])
def test_names_and_shapes_are_those_of_torchvision_and_timm(depth):
  import timm
  import torch
  import torchvision

  ours = {
    # Without memory: a view of one number.
    name: np.broadcast_to(np.zeros((), x.dtype), x.shape)
    for name, x in shapes(f"ResNet{depth}").items()
  }
  theirs = {k: v.shape for k, v in torch_names.to_torch(ours).items()}
  models = []
  with torch.device("meta"):
    models.append(timm.create_model(f"resnet{depth}", num_classes=0))
    if depth < 200:
      models.append(getattr(torchvision.models, f"resnet{depth}")())
  for model in models:
    expected = {k: tuple(v.shape) for k, v in model.state_dict().items()}
    imported = torch_names.from_torch(
      {k: np.broadcast_to(np.float32(0), v) for k, v in expected.items()},
      f"res_net{depth}",
    )
    assert {k: v.shape for k, v in imported.arrays.items()} == {
      k: v.shape for k, v in ours.items()
    }
    assert all(
      k.startswith("fc.") or k.endswith(".num_batches_tracked")
      for k in imported.left_out
    )
    shortcut = {k: v for k, v in theirs.items() if k not in expected}
    assert bool(shortcut) == (depth < 50) == bool(imported.added)
    assert {k.rsplit(".", 2)[0] for k in shortcut} <= {"layer1.0.downsample"}
    assert all(expected[k] == v for k, v in theirs.items() if k not in shortcut)
    assert expected.keys() - theirs.keys() == set(imported.left_out)


def test_what_has_no_place_is_named():
  with pytest.raises(errors.UserError, match=r"final_batchnorm.*version=v1"):
    torch_names.to_torch(drawn(shapes("TinyResNet", version="v2")))
  kernel, vector = np.zeros((8, 8, 3, 3)), np.zeros(8)
  for name, array in (
    ("layer1.0.se.fc1.weight", kernel),  # Another network's layers.
    ("layer5.0.conv1.weight", kernel),
    ("layer1.0.conv1.bias", vector),
    ("conv2.weight", kernel),
    ("layer1.0.downsample.2.weight", vector),
    ("bn1.weight", kernel),  # Another rank.
    ("conv1.weight", vector),
  ):
    with pytest.raises(errors.UserError, match="is not an array of a plain"):
      torch_names.from_torch({name: array}, "res_net18")
