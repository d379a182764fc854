"""Views that are no squares: crops, networks, runs and files of them."""

import dataclasses
import functools
import itertools

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow as tf

from byol_jax import config, errors, load_encoder
from byol_jax.augment import (
  device_batches,
  device_crops,
  device_ops,
  sampling,
  spec,
)
from byol_jax.config import convert, schema
from byol_jax.data import (
  array_crops,
  array_source,
  crops,
  decode_all,
  resizing,
)
from byol_jax.data import images as images_lib
from byol_jax.data.source import CentreCrop, RandomCrop
from byol_jax.evaluation import runner
from byol_jax.interop import exports, images, onnx_file, timm_names
from byol_jax.models import vit
from byol_jax.reporting import markup, report
from byol_jax.reporting import views as views_picture
from byol_jax.training import build, loop, runs
from tests import input_cases
from tests.augment_cases import applier, noise, paper_view, params_of
from tests.network_cases import PATCH_ENCODERS, make_network

PAPER = (paper_view("view1"), paper_view("view2"))
CROPPED = (input_cases.CROP_ONLY, input_cases.CROP_ONLY)
CROP = spec.Crop()


def numbers(count):
  return np.random.RandomState(0).rand(count, 1, 4).astype(np.float32)


@pytest.mark.parametrize("ratio", [4, 1 / 4])
def test_a_wide_view_is_a_square_view_of_a_narrower_image(ratio):
  """A wide view crops a stretched image as a square one crops the image."""
  u = numbers(200)
  wide = np.array([max(ratio, 1), max(1 / ratio, 1)], np.int32)  # W, H.
  square = sampling.crop_boxes(
    np, np.float32(160), np.float32(160), u, [CROP], (32, 32)
  )
  found = sampling.crop_boxes(
    np,
    np.float32(160 * wide[1]),
    np.float32(160 * wide[0]),
    u,
    [CROP],
    (32 * wide[1], 32 * wide[0]),
  )
  # Lengths are rounded to whole pixels of each image.
  for name, factor in (("height", wide[1]), ("width", wide[0])):
    distance = getattr(found, name) - factor * getattr(square, name)
    assert np.abs(distance).max() <= factor / 2 + 0.5


@pytest.mark.parametrize("shape", [(16, 64), (50, 30)])
def test_a_view_distorts_as_much_as_the_range_of_aspects(shape):
  height, width = 20 * shape[0], 20 * shape[1]
  box = sampling.crop_boxes(
    np, np.float32(height), np.float32(width), numbers(500), [CROP], shape
  )
  stretched = (box.width / box.height) / (shape[1] / shape[0])
  low, high = CROP.crop_aspect
  assert low * 0.97 < stretched.min() < 0.8
  assert 1.2 < stretched.max() < high * 1.03


@pytest.mark.parametrize("shape", [(24, 72), (70, 40), (130, 260)])
@pytest.mark.parametrize("size", [(90, 121), (300, 20)])
def test_crops_on_the_device_are_those_of_the_host(shape, size):
  image = noise(*size)
  views = spec.Views(*PAPER, shape)
  drawn, expected = [], []
  for i in range(10):
    *pair, first, second = crops.two_random_crops(
      tf.constant(image), views, tf.constant([3, i], tf.int64)
    )
    drawn.append([first, second])
    expected.append(pair)
  found = jax.jit(functools.partial(device_crops.random_crops, views=views))(
    np.stack([image] * 10), np.array([size] * 10, np.int32), np.array(drawn)
  )
  assert found[0].shape == (10, *shape, 3)
  expected = np.clip(np.round(np.array(expected)), 0, 255)
  differences = np.abs(np.stack(found, 1).astype(float) - expected)
  assert differences.max() <= 1
  assert (differences > 0).mean() < 1e-3


@pytest.mark.parametrize("shape", [(24, 72), (70, 40)])
@pytest.mark.parametrize("changed", ["blur", "flip"])
def test_operations_on_the_device_are_those_of_the_host(shape, changed):
  view = paper_view("view1")
  pixels = noise(*shape)[None].astype(np.float32)
  params = params_of(1, **{changed: True}, order=np.arange(4, dtype=np.int32))
  params = params._replace(amounts=np.ones((1, 4), np.float32))
  host, device = (
    applier(placement, spec.enabled_ops(view))(pixels, params)
    for placement in ("host", "device")
  )
  assert host.shape == (1, *shape, 3)
  np.testing.assert_allclose(host, device, atol=1e-5)
  assert np.abs(host - pixels / 255).max() > 0.05


def test_a_blur_has_one_width_in_both_directions():
  """A point becomes a spot that does not change when it is transposed."""
  point = np.zeros((60, 120, 3), np.float32)
  point[30, 50] = 1
  spot = np.asarray(device_ops.blur(point, 1.5))[20:41, 40:61, 0]
  np.testing.assert_allclose(spot, spot.T, atol=1e-7)
  assert (
    spot > 0
  ).sum() == 7**2  # A tenth of the shorter side, and its centre.


@pytest.mark.parametrize("placement", ["host", "device"])
def test_batches_from_the_device_are_those_of_the_host(source, placement):
  """The second argument is `augment.placement`."""
  shape = (12, 30)
  view1, view2 = CROPPED
  (host,) = input_cases.train_batches(
    source,
    1,
    image_shape=shape,
    cache_bytes=2**30,
    view1=view1,
    view2=view2,
    placement=placement,
  )
  views = spec.Views(view1, view2, shape, 3, "device")
  stream = device_batches.Stream(views, 0, input_cases.SIZE, 10)
  table = decode_all.decode(source, "train", 3)._asdict()
  table = jax.tree.map(jnp.asarray, table)
  drawn = device_batches.draw(stream, table, jnp.int32(0))
  found = device_ops.apply_to_batch(views, drawn)
  host = device_ops.apply_to_batch(views._replace(placement=placement), host)
  np.testing.assert_array_equal(found["label"], host["label"])
  for name in ("view1", "view2"):
    assert host[name].shape == (10, *shape, 3)
    np.testing.assert_allclose(found[name], host[name], atol=1 / 255)


# The region that covers a fraction of an image of 3 x 8, 8 x 3 or 4 x 4 pixels, as
# large as the view, so that nothing is resized.
CENTRES = [
  ((4, 4), (2, 4), 1.0, np.s_[1:3, :]),
  ((4, 4), (4, 2), 1.0, np.s_[:, 1:3]),
  ((3, 8), (2, 4), 0.7, np.s_[1:3, 2:6]),  # Of the largest, 3 x 6: 2.1 x 4.2.
  ((8, 3), (4, 2), 0.7, np.s_[2:6, 1:3]),
  ((3, 8), (3, 6), 1.0, np.s_[:, 1:7]),
]


@pytest.mark.parametrize(("size", "shape", "fraction", "region"), CENTRES)
def test_evaluations_crop_the_largest_region_of_the_aspect(
  size, shape, fraction, region
):
  image = noise(*size)
  expected = image[region] / np.float32(255)
  on_host = crops.centre_crop(tf.constant(image), shape, fraction)
  np.testing.assert_allclose(on_host, expected, atol=1e-6)
  table = images_lib.pack([image, noise(9, 9)], [0, 0])
  (in_memory,) = array_crops.centres(
    table, np.array([0]), CentreCrop(shape, fraction)
  )
  np.testing.assert_allclose(in_memory, expected, atol=1e-6)
  form = images.Form(shape, 3, fraction)
  np.testing.assert_allclose(images.prepared(image, form), expected, atol=1e-6)


@pytest.mark.parametrize("shape", [(20, 45), (45, 20)])
@pytest.mark.parametrize("size", [(333, 500), (61, 60), (1, 9)])
def test_all_centre_crops_are_alike(shape, size):
  image = noise(*size)
  expected = crops.centre_crop(tf.constant(image), shape, 0.875)
  assert expected.shape == (*shape, 3)
  found = images.prepared(image, images.Form(shape, 3, 0.875))
  np.testing.assert_allclose(found, expected, atol=1e-5)
  (found,) = array_crops.centres(
    images_lib.pack([image], [0]), np.array([0]), CentreCrop(shape, 0.875)
  )
  np.testing.assert_allclose(found, expected, atol=1e-5)


def test_crops_of_classifiers_are_alike_on_host_and_in_memory(source, tmp_path):
  path = str(tmp_path / "arrays.npz")
  table = decode_all.decode(source, "train", 3)
  np.savez(path, train_images=table.pixels, train_labels=table.labels)
  options = dataclasses.replace(input_cases.OPTIONS, cache_bytes=2**30)
  found, expected = (
    next(
      data_set.labelled_batches(
        "train",
        range(20),
        RandomCrop((9, 21), CROP),
        options,
        batch_size=8,
        seed=0,
      )
    )
    for data_set in (array_source.load(path), source)
  )
  assert expected["image"].shape == (8, 9, 21, 3)
  np.testing.assert_array_equal(found["label"], expected["label"])
  np.testing.assert_allclose(found["image"], expected["image"], atol=1e-5)


@pytest.mark.parametrize("shape", [(70, 300), (257, 100)])
def test_large_results_are_those_of_tf_image_resize(shape):
  image = tf.constant(noise(300, 200))
  begins, sizes = tf.constant([[5, 9, 0]]), tf.constant([[280, 150, -1]])
  (found,) = resizing.resize_boxes(image, begins, sizes, shape)
  expected = tf.image.resize(image[5:285, 9:159], shape, "bicubic")
  np.testing.assert_allclose(found / 255, expected / 255, atol=2e-6)


def test_a_quarter_turn_is_refused_in_one_line():
  changes = {
    "data.image_size": 64,
    "data.image_width": 256,
    "augment.view2.rotate90_prob": 0.5,
  }
  wide = convert.updated(schema.Config(), changes)
  with pytest.raises(errors.UserError) as caught:
    config.validate(wide)
  assert str(caught.value) == (
    "augment.view2.rotate90_prob=0.5 must be 0 for views of 64x256 pixels, since a"
    " quarter turn exchanges height and width; set it to 0, or data.image_width to 0"
    " for square views."
  )
  for width in (0, 64):
    config.validate(convert.updated(wide, {"data.image_width": width}))
  config.validate(convert.updated(wide, {"augment.view2.rotate90_prob": 0.0}))


def test_a_width_needs_a_height():
  changes = {"data.image_size": 0, "data.image_width": 256}
  with pytest.raises(errors.UserError, match="image_width=256 needs a height"):
    config.validate(convert.updated(schema.Config(), changes))


@pytest.mark.parametrize("family", PATCH_ENCODERS)
def test_maps_of_patches_have_the_shape_of_the_views(family):
  network = make_network(image_shape=(16, 40), **PATCH_ENCODERS[family])
  pixels = np.random.RandomState(0).rand(2, 16, 40, 3).astype(np.float32)
  params, state = network.init(jax.random.key(0), pixels, is_training=True)
  outputs, _ = network.apply(params, state, pixels, is_training=False)
  assert np.isfinite(outputs.embedding).all()
  # The last column counts.
  changed = pixels.copy()
  changed[:, :, -1] += 1
  others, _ = network.apply(params, state, changed, is_training=False)
  assert np.abs(others.embedding - outputs.embedding).max() > 1e-4


@pytest.mark.parametrize(
  "encoder", [{}, {"padding": "torch"}, {"stem": "cifar"}], ids=str
)
def test_a_transposed_resnet_sees_the_same_in_transposed_images(encoder):
  pixels = np.random.RandomState(0).rand(2, 16, 40, 3).astype(np.float32)
  network = make_network(
    name="TinyResNet", image_shape=pixels.shape[1:3], **encoder
  )
  params, state = network.init(jax.random.key(0), pixels, is_training=True)
  expected, _ = network.apply(params, state, pixels, is_training=False)
  transposed = jax.tree.map(
    lambda x: x.swapaxes(0, 1) if x.ndim == 4 else x, params
  )
  found, _ = network.apply(
    transposed, state, pixels.swapaxes(1, 2), is_training=False
  )
  np.testing.assert_allclose(found.embedding, expected.embedding, atol=1e-4)


@pytest.mark.parametrize(
  ("encoder", "shape", "problem"),
  [
    ("ViTTiny", (32, 72), "data.image_width=72 must be a multiple of 16"),
    ("ViTTiny", (30, 48), "data.image_size=30 must be a multiple of 16"),
    ("ViTTiny", (32, 72), "to one of 1, 2, 4, 8, or"),
    ("ConvNeXtAtto", (64, 16), "data.image_width=16 must be at least 32"),
  ],
)
def test_patches_must_divide_both_sides(encoder, shape, problem):
  with pytest.raises(errors.UserError, match=problem):
    make_network(name=encoder, image_shape=shape)


def test_timm_gets_the_shape_and_the_positions_of_a_vit():
  cfg = convert.updated(
    schema.Config(),
    {
      "data.image_size": 32,
      "data.image_width": 64,
      "model.encoder.name": "ViTMicro",
      "model.encoder.stem": "imagenet",
    },
  )
  assert timm_names.model(cfg).args["img_size"] == (32, 64)
  arrays = {
    "params/vit_micro/patch_embedding/w": np.zeros((16 * 16 * 3, 128)),
  }
  positions = timm_names.to_timm(arrays, cfg)["pos_embed"]
  np.testing.assert_array_equal(
    positions, vit.positions(2, 4, 128).reshape(1, 8, 128)
  )


def test_onnx_pads_rows_and_columns_apart():
  cfg = convert.updated(schema.Config(), {"model.encoder.padding": "same"})
  graph = onnx_file._Graph({}, cfg)
  assert graph._pads((7, 8), 3, 2) == [1, 0, 1, 1]
  cfg = convert.updated(cfg, {"model.encoder.padding": "torch"})
  assert onnx_file._Graph({}, cfg)._pads((7, 8), 3, 2) == [1, 1, 1, 1]


def test_a_sheet_of_pictures_distorts_none():
  white = np.ones((1, 8, 32, 3))
  sheet = np.asarray(markup.sheet(white, 32, 1))
  np.testing.assert_array_equal(sheet[12:20], 255)
  assert not sheet[:12].any()
  assert not sheet[20:].any()


@pytest.mark.slow
@pytest.mark.parametrize("placement", ["host", "device"])
def test_a_run_on_wide_digits_from_images_to_features(
  tmp_path, digits_dir, placement
):
  """Two steps on two devices, evaluation, pictures, and the encoder's files."""
  shape = (12, 20)
  cfg = config.small_grey_config()
  cfg.data.dataset, cfg.data.data_dir = "mnist_digits", digits_dir
  cfg.data.placement = placement
  cfg.data.image_size, cfg.data.image_width = shape
  cfg.model.encoder.name = "TinyResNet"
  cfg.model.encoder.width = 0.25
  cfg.train.batch_size, cfg.train.steps = 8, 2
  cfg.evaluation.protocols = ("knn",)
  cfg.evaluation.train_split = "train[:100]"
  cfg.evaluation.test_split = "test[:50]"
  cfg.log.diagnose = False
  cfg.export.formats = ("haiku", "stablehlo")
  run = runs.prepare(cfg, tmp_path / "run")
  assert jax.device_count() == 2
  state, _ = loop.pretrain(run)
  assert int(state.step) == 2
  found = runner.evaluate(run, state)
  assert {"knn/top1", "baseline/pixels_knn_top1"} <= set(found)
  page = report.write(run, [])
  assert views_picture.first(run).view1.shape[1:3] == shape
  assert "Views of 12 x 20 x" in (run.workdir / "card.md").read_text()
  assert 'width=20 height=12 alt="view 1 of image 1"' in page.read_text()

  exports.write(run, state, lambda line: None)
  encoder = load_encoder(run.workdir)
  assert (encoder.image_size, encoder.image_width) == shape
  (batch,) = itertools.islice(
    run.source.eval_batches(
      "test", CentreCrop(shape, cfg.data.eval_crop), batch_size=5
    ),
    1,
  )
  pixels = np.round(batch["image"] * 255).astype(np.uint8)
  features = encoder.encode(pixels)
  network = build.build_encoder(run.config)
  expected, _ = network.apply(
    *encoder.variables, pixels / np.float32(255), is_training=False
  )
  np.testing.assert_allclose(features, expected.embedding, atol=1e-5)
  larger = np.repeat(np.repeat(pixels, 3, 1), 3, 2)
  assert encoder.encode(encoder.prepare(larger)).shape == features.shape
  with pytest.raises(errors.UserError, match=r"takes \(number, 12, 20, 3\)"):
    encoder.encode(pixels.swapaxes(1, 2))
  path = run.workdir / "encoder" / "encoder.stablehlo"
  program = jax.export.deserialize(bytearray(path.read_bytes()))
  np.testing.assert_allclose(program.call(pixels), features, atol=1e-5)
