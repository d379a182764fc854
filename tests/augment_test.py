"""The augmentations against the reference, and the laws of random draws."""

import math

import numpy as np
import pytest
import tensorflow as tf

from byol_jax import augment, config
from tests.golden_data import Golden

GOLDEN = Golden("augment_ops")
SIZES = (32, 64, 96, 128, 160, 224)


def plain_view(**changes) -> augment.View:
  """A view that shows the whole image as it is, but for the changes."""
  view = augment.View(
    crop_area=(1.0, 1.0),
    crop_aspect=(1.0, 1.0),
    flip_prob=0.0,
    jitter_prob=0.0,
    brightness=0.0,
    contrast=0.0,
    saturation=0.0,
    hue=0.0,
    grayscale_prob=0.0,
    blur_prob=0.0,
    blur_sigma=(0.1, 2.0),
    solarize_prob=0.0,
  )
  return view._replace(**changes)


def paper_view(name: str) -> augment.View:
  return augment.View(**config.default_config().augment[name])


def draws(image, view, size, count) -> np.ndarray:
  """Views of one image for the seeds (0, 0), (0, 1), ..."""
  image = tf.constant(image)
  dataset = tf.data.Dataset.range(count).map(
    lambda i: augment.random_view(image, view, size, tf.stack([0, i])),
    tf.data.AUTOTUNE,
  )
  return next(dataset.batch(count).as_numpy_iterator())


def noise(height, width, channels=3) -> np.ndarray:
  rng = np.random.RandomState(0)
  return rng.randint(0, 256, (height, width, channels), np.uint8)


def test_view_takes_the_fields_of_the_config():
  assert set(augment.View._fields) == set(config.default_config().augment.view1)


@pytest.mark.parametrize("name", augment.JITTER)
def test_colour_operation_is_the_references(name):
  operation, _ = augment.JITTER[name]
  for j, amount in enumerate(GOLDEN[f"factors/{name}"]):
    for image, expected in zip(
      GOLDEN["32/images"], GOLDEN[f"32/{name}/{j}"], strict=True
    ):
      np.testing.assert_allclose(operation(image, amount), expected, atol=1e-6)


@pytest.mark.parametrize("name", augment.JITTER)
def test_neutral_amount_changes_nothing(name):
  operation, neutral = augment.JITTER[name]
  image = GOLDEN["32/images"][0]
  np.testing.assert_allclose(operation(image, neutral), image, atol=1e-6)


def test_grayscale_is_the_references_in_three_channels():
  gray = augment.grayscale(GOLDEN["32/images"]).numpy()
  expected = np.repeat(GOLDEN["32/grayscale"], 3, axis=-1)
  np.testing.assert_allclose(gray, expected, atol=1e-6)


def test_solarize_is_the_references():
  for image, expected in zip(
    GOLDEN["32/images"], GOLDEN["32/solarize"], strict=True
  ):
    np.testing.assert_array_equal(augment.solarize(image), expected)


@pytest.mark.parametrize(("size", "j"), [(32, 0), (32, 1), (32, 2), (64, 2)])
def test_blur_is_the_references_up_to_the_dark_border(size, j):
  sigma = GOLDEN["factors/sigma"][j]
  for image, expected in zip(
    GOLDEN[f"{size}/images"], GOLDEN[f"{size}/blur/{j}"], strict=True
  ):
    blurred = augment.gaussian_blur(image, sigma)
    np.testing.assert_allclose(blurred, expected, atol=1e-6)


@pytest.mark.parametrize("size", SIZES)
def test_blur_kernel_holds_the_references_taps_in_every_row(size):
  for j, sigma in enumerate(GOLDEN["factors/sigma"]):
    taps = GOLDEN[f"taps/{size}/{j}"]
    radius = len(taps) // 2
    expected = np.zeros((size, size + 2 * radius), np.float32)
    for row in range(size):
      expected[row, row : row + len(taps)] = taps
    kernel = augment.blur_kernel(size, sigma)
    np.testing.assert_allclose(
      kernel, expected[:, radius : size + radius], rtol=2e-5, atol=1e-9
    )


def test_image_too_small_to_blur_stays_as_it_is():
  image = GOLDEN["32/images"][0][:19, :19]
  blurred = augment.gaussian_blur(image, 2.0)
  np.testing.assert_array_equal(blurred, image)


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("mapped", [False, True])
def test_chain_of_all_operations_is_the_references(size, mapped):
  amounts = {"brightness": 0.2, "contrast": 1.4, "saturation": 1.2, "hue": 0.05}

  def chain(image):
    for name, amount in amounts.items():
      operation, _ = augment.JITTER[name]
      image = tf.clip_by_value(operation(image, amount), 0.0, 1.0)
    image = augment.solarize(augment.gaussian_blur(image, 1.0))
    return tf.clip_by_value(image, 0.0, 1.0)

  images = GOLDEN[f"{size}/images"]
  if mapped:
    dataset = tf.data.Dataset.from_tensor_slices(images).map(chain)
    actual = np.stack(list(dataset.as_numpy_iterator()))
  else:
    actual = np.stack([chain(image) for image in images])
  different = ~np.isclose(actual, GOLDEN[f"{size}/chain"], rtol=0, atol=1e-5)
  # Rounding may carry a value of one half across solarisation's threshold.
  np.testing.assert_array_less(np.abs(actual - 0.5)[different], 1e-5)
  assert different.mean() < 1e-3


@pytest.mark.parametrize("name", ["view1", "view2"])
def test_random_views_have_the_references_statistics(name):
  image = np.round(GOLDEN["32/images"][0] * 255).astype(np.uint8)
  view = paper_view(name)._replace(crop_area=(1.0, 1.0), crop_aspect=(1.0, 1.0))
  views = draws(image, view, 32, 4000)
  spread = float(GOLDEN[f"stats/std_of_image_mean_{name}"])
  # Four standard errors of the difference of two samples of 4000.
  np.testing.assert_allclose(
    views.mean((0, 1, 2)),
    GOLDEN[f"stats/mean_over_4000_{name}"],
    atol=4 * spread * math.sqrt(2 / 4000),
  )
  np.testing.assert_allclose(
    views.mean((1, 2, 3)).std(), spread, atol=4 * spread * math.sqrt(1 / 4000)
  )


@pytest.mark.parametrize(
  ("field", "changed"),
  [
    ("flip_prob", lambda image: image[:, ::-1]),
    ("grayscale_prob", lambda image: augment.grayscale(image).numpy()),
    ("solarize_prob", lambda image: augment.solarize(image).numpy()),
  ],
)
@pytest.mark.parametrize("probability", [0.0, 0.2, 0.5, 1.0])
def test_operation_happens_as_often_as_asked(field, changed, probability):
  image = noise(8, 8)
  views = draws(image, plain_view(**{field: probability}), 8, 2000)
  plain = (image / 255).astype(np.float32)
  happened = np.isclose(views, changed(plain), atol=1e-6).all((1, 2, 3))
  untouched = np.isclose(views, plain, atol=1e-6).all((1, 2, 3))
  assert np.all(happened ^ untouched)
  error = math.sqrt(probability * (1 - probability) / 2000)
  np.testing.assert_allclose(happened.mean(), probability, atol=4 * error)


def test_impossible_operations_are_not_built():
  def op_types(view):
    graph_function = tf.function(
      lambda seed: augment.random_view(
        tf.constant(noise(32, 32)), view, 32, seed
      )
    ).get_concrete_function(tf.TensorSpec([2], tf.int64))
    library = graph_function.graph.as_graph_def().library.function
    nodes = [*graph_function.graph.as_graph_def().node]
    nodes += [node for function in library for node in function.node_def]
    return {node.op for node in nodes}

  colour = {"AdjustHue", "AdjustSaturation", "AdjustContrastv2"}
  plain = op_types(plain_view())
  assert not plain & (colour | {"MatMul", "StatelessIf", "ReverseV2"})
  hue = op_types(plain_view(jitter_prob=1.0, hue=0.1))
  assert hue & colour == {"AdjustHue"}


def test_all_random_numbers_of_a_view_come_from_one_draw():
  function = tf.function(
    lambda seed: augment.random_view(
      tf.constant(noise(32, 32)), paper_view("view2"), 32, seed
    )
  ).get_concrete_function(tf.TensorSpec([2], tf.int64))
  graph = function.graph.as_graph_def()
  nodes = [*graph.node]
  nodes += [node for item in graph.library.function for node in item.node_def]
  assert sum(node.op == "StatelessRandomUniformV2" for node in nodes) == 1


def test_amounts_of_brightness_are_uniform():
  image = np.full((4, 4, 3), 128, np.uint8)
  view = plain_view(jitter_prob=1.0, brightness=0.4)
  change = draws(image, view, 4, 2000)[:, 0, 0, 0] - 128 / 255
  assert -0.4 <= change.min() < -0.39
  assert 0.39 < change.max() <= 0.4
  np.testing.assert_allclose(change.std(), 0.8 / math.sqrt(12), atol=0.01)


def test_colour_operations_come_in_every_order():
  # Clipping between brightness and contrast tells their orders apart.
  image = np.zeros((2, 2, 3), np.uint8)
  image[0] = 255
  u_amount = tf.constant([0.9, 0.9, 0.5, 0.5])
  view = plain_view(brightness=0.4, contrast=0.4)
  image = image / np.float32(255)
  brightness_first = augment._jitter(image, view, u_amount, [0.1, 0.9, 0, 0])
  contrast_first = augment._jitter(image, view, u_amount, [0.9, 0.1, 0, 0])
  assert not np.allclose(brightness_first, contrast_first)
  views = draws(
    (image * 255).astype(np.uint8), view._replace(jitter_prob=1.0), 2, 200
  )
  assert len(np.unique(views.round(5), axis=0)) > 100


def numpy_crop_box(u, view, height, width):
  """The reference's crop, computed again in float32 NumPy."""
  area, aspect, top, left = np.float32(u)
  low, high = view.crop_area
  pixels = np.float32(height * width) * np.float32(low + area * (high - low))
  low, high = np.log(view.crop_aspect)
  ratio = np.exp(np.float32(low + aspect * (high - low)))
  crop_width = int(np.clip(np.round(np.sqrt(pixels * ratio)), 1, width))
  crop_height = int(np.clip(np.round(np.sqrt(pixels / ratio)), 1, height))
  top = int(top * (height - crop_height + 1))
  left = int(left * (width - crop_width + 1))
  return top, left, crop_height, crop_width


@pytest.mark.parametrize(
  ("height", "width"),
  [(60, 80), (20, 400), (300, 12), (1, 1), (2, 3), (1, 50)],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_crop_is_the_box_that_numpy_computes(height, width, channels):
  image = noise(height, width, channels)
  view = paper_view("view1")
  for u in np.random.RandomState(1).rand(50, 4).astype(np.float32):
    top, left, h, w = numpy_crop_box(u, view, height, width)
    box = image[top : top + h, left : left + w].astype(np.float32)
    expected = tf.image.resize(box, (16, 16), "bicubic").numpy() / 255
    expected = np.broadcast_to(np.clip(expected, 0, 1), (16, 16, 3))
    actual = augment.random_crop(image, u, view, 16)
    np.testing.assert_allclose(actual, expected, atol=1e-5)


@pytest.mark.parametrize("u", [0.0, 1 - 2**-23])
def test_extreme_draws_stay_inside_the_image(u):
  crop = augment.random_crop(noise(7, 5), [u] * 4, paper_view("view1"), 8)
  assert crop.shape == (8, 8, 3)
  assert np.isfinite(crop).all()


def test_full_crop_of_the_same_size_is_the_image():
  image = noise(28, 28)
  crop = augment.random_crop(image, [0.3] * 4, plain_view(), 28)
  np.testing.assert_allclose(crop, image / 255, atol=1e-6)


@pytest.mark.parametrize(
  ("height", "width", "crop"),
  [(256, 320, 0.875), (34, 20, 0.875), (28, 28, 1.0), (1, 9, 0.5)],
)
def test_eval_image_is_the_central_square(height, width, crop):
  image = noise(height, width)
  side = max(1, int(crop * min(height, width)))
  top, left = (height - side + 1) // 2, (width - side + 1) // 2
  box = image[top : top + side, left : left + side].astype(np.float32)
  expected = tf.image.resize(box, (24, 24), "bicubic").numpy() / 255
  actual = augment.eval_image(image, 24, crop)
  np.testing.assert_allclose(actual, np.clip(expected, 0, 1), atol=1e-6)


def test_gray_eval_image_gets_three_equal_channels():
  image = augment.eval_image(noise(28, 28, 1), 28, 1.0).numpy()
  assert image.shape == (28, 28, 3)
  np.testing.assert_array_equal(image[..., 0], image[..., 2])


@pytest.mark.parametrize(
  "shape", [(40, 50, 3), (40, 50, 1), (5, 500, 3), (1, 1, 3)]
)
def test_any_image_becomes_a_view_in_range(shape):
  views = draws(noise(*shape), paper_view("view2"), 32, 64)
  assert views.shape == (64, 32, 32, 3)
  assert views.dtype == np.float32
  assert views.min() >= 0
  assert views.max() <= 1


def test_jitter_without_any_strength_changes_nothing():
  image = noise(8, 8)
  view = draws(image, plain_view(jitter_prob=1.0), 8, 1)[0]
  np.testing.assert_allclose(view, image / 255, atol=1e-6)


def test_eager_view_is_the_one_inside_tf_data():
  image = noise(40, 50)
  view = paper_view("view2")
  mapped = draws(image, view, 32, 8)
  for i in range(8):
    seed = tf.constant([0, i], tf.int64)
    eager = augment.random_view(image, view, 32, seed)
    np.testing.assert_allclose(eager, mapped[i], atol=1e-6)


def two_views(image, view1, view2, seed) -> tuple[np.ndarray, np.ndarray]:
  views = augment.two_views(
    image, view1, view2, 32, tf.constant(seed, tf.int64)
  )
  return views[0].numpy(), views[1].numpy()


def test_views_depend_on_seed_and_index():
  image, view = noise(40, 50), paper_view("view1")
  first = two_views(image, view, view, [0, 7])
  np.testing.assert_array_equal(first, two_views(image, view, view, [0, 7]))
  for seed in ([1, 7], [0, 8], [7, 0]):
    for a, b in zip(first, two_views(image, view, view, seed), strict=True):
      assert not np.allclose(a, b)


def test_two_views_of_an_image_are_independent():
  image = tf.fill((4, 4, 3), tf.constant(128, tf.uint8))
  view = plain_view(jitter_prob=1.0, brightness=0.4)
  dataset = tf.data.Dataset.range(1000).map(
    lambda i: augment.two_views(image, view, view, 4, tf.stack([0, i]))
  )
  first, second = next(dataset.batch(1000).as_numpy_iterator())
  correlation = np.corrcoef(first[:, 0, 0, 0], second[:, 0, 0, 0])[0, 1]
  assert abs(correlation) < 4 / math.sqrt(1000)


def test_changing_one_view_leaves_the_other_alone():
  image, view = noise(40, 50), paper_view("view1")
  _, second = two_views(image, view, view, [0, 7])
  _, again = two_views(image, view._replace(hue=0.0), view, [0, 7])
  np.testing.assert_array_equal(second, again)
