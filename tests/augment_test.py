"""The augmentations against the reference, and the laws of random draws."""

import functools
import math

import jax
import jax.extend
import numpy as np
import pytest
import tensorflow as tf

from byol_jax import config
from byol_jax.augment import device_ops
from byol_jax.data import host_ops
from tests.golden_data import Golden

GOLDEN = Golden("augment_ops")
SIZES = (32, 64, 96, 128, 160, 224)

both_placements = pytest.mark.parametrize("placement", ["host", "device"])


def plain_view(**changes) -> host_ops.View:
  """A view that shows the whole image as it is, but for the changes."""
  view = host_ops.View(
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


def paper_view(name: str) -> host_ops.View:
  return host_ops.View(**config.default_config().augment[name])


def on_planes(operation, image, *args) -> np.ndarray:
  """What an operation on the planes of the three channels does to an image."""
  planes = operation(tuple(tf.unstack(image, axis=-1)), *args)
  return np.stack(planes, axis=-1)


def on_each_plane(operation, image, *args) -> np.ndarray:
  planes = [operation(plane, *args) for plane in tf.unstack(image, axis=-1)]
  return np.stack(planes, axis=-1)


def change_colour(placement, name, image, amount) -> np.ndarray:
  if placement == "host":
    return on_planes(host_ops.JITTER[name][0], image, amount)
  return np.asarray(device_ops.JITTER[name](image, amount))


def grayscale(placement, image) -> np.ndarray:
  if placement == "host":
    return on_planes(host_ops.grayscale, image)
  return np.asarray(device_ops.grayscale(image))


def solarize(placement, image) -> np.ndarray:
  if placement == "host":
    return on_each_plane(host_ops.solarize, image)
  return np.asarray(device_ops.solarize(image))


def blur(placement, image, sigma) -> np.ndarray:
  if placement == "host":
    return on_each_plane(host_ops.blur, image, sigma)
  return np.asarray(device_ops.blur(image, sigma))


@functools.cache
def finisher(placement, operations, jitted=True):
  """`finish` of a placement, from and to NumPy arrays."""
  module = host_ops if placement == "host" else device_ops

  def function(crops, recipes):
    return module.finish(crops, recipes, operations)

  if jitted and placement == "host":
    function = tf.function(function, jit_compile=True)
  elif jitted:
    function = jax.jit(function)
  return lambda crops, recipes: np.asarray(
    function(
      np.asarray(crops),
      host_ops.Recipe(*(np.asarray(field) for field in recipes)),
    )
  )


def crops_and_recipes(image, view, size, count, operations=None):
  """Crops of one image for the seeds (0, 0), (0, 1), ..., with recipes."""
  image = tf.constant(image)
  dataset = tf.data.Dataset.range(count).map(
    lambda i: host_ops.two_crops(image, view, view, size, tf.stack([0, i])),
    tf.data.AUTOTUNE,
  )
  crops, _, u, _ = next(dataset.batch(count).as_numpy_iterator())
  operations = operations or host_ops.possible(view)
  return crops, host_ops.draw(u, view, operations)


def draws(placement, image, view, size, count) -> np.ndarray:
  """Views of one image for the seeds (0, 0), (0, 1), ..."""
  finish = finisher(placement, host_ops.possible(view))
  return finish(*crops_and_recipes(image, view, size, count))


def recipe_of(count, **fields) -> host_ops.Recipe:
  """A recipe for as many crops, that changes nothing but what is given."""
  recipe = host_ops.Recipe(
    flip=False,
    jitter=False,
    order=np.zeros(0, np.int32),
    amounts=np.zeros(0, np.float32),
    grayscale=False,
    blur=False,
    sigma=np.float32(1),
    solarize=False,
  )._replace(**fields)
  return host_ops.Recipe(*(np.stack([field] * count) for field in recipe))


def noise(height, width, channels=3) -> np.ndarray:
  rng = np.random.RandomState(0)
  return rng.randint(0, 256, (height, width, channels), np.uint8)


def test_view_takes_the_fields_of_the_config():
  assert set(host_ops.View._fields) == set(
    config.default_config().augment.view1
  )


def test_placements_know_the_same_colour_operations():
  assert list(host_ops.JITTER) == list(device_ops.JITTER)


@both_placements
@pytest.mark.parametrize("name", host_ops.JITTER)
def test_colour_operation_is_the_references(name, placement):
  for j, amount in enumerate(GOLDEN[f"factors/{name}"]):
    for image, expected in zip(
      GOLDEN["32/images"], GOLDEN[f"32/{name}/{j}"], strict=True
    ):
      actual = change_colour(placement, name, image, amount)
      np.testing.assert_allclose(actual, expected, atol=1e-6)


@both_placements
@pytest.mark.parametrize("name", host_ops.JITTER)
def test_neutral_amount_changes_nothing(name, placement):
  _, neutral = host_ops.JITTER[name]
  image = GOLDEN["32/images"][0]
  actual = change_colour(placement, name, image, neutral)
  np.testing.assert_allclose(actual, image, atol=1e-6)


@both_placements
def test_grayscale_is_the_references_in_three_channels(placement):
  gray = grayscale(placement, GOLDEN["32/images"])
  expected = np.repeat(GOLDEN["32/grayscale"], 3, axis=-1)
  np.testing.assert_allclose(gray, expected, atol=1e-6)


@both_placements
def test_solarize_is_the_references(placement):
  for image, expected in zip(
    GOLDEN["32/images"], GOLDEN["32/solarize"], strict=True
  ):
    np.testing.assert_array_equal(solarize(placement, image), expected)


@both_placements
@pytest.mark.parametrize(("size", "j"), [(32, 0), (32, 1), (32, 2), (64, 2)])
def test_blur_is_the_references_up_to_the_dark_border(size, j, placement):
  sigma = GOLDEN["factors/sigma"][j]
  for image, expected in zip(
    GOLDEN[f"{size}/images"], GOLDEN[f"{size}/blur/{j}"], strict=True
  ):
    blurred = blur(placement, image, sigma)
    np.testing.assert_allclose(blurred, expected, atol=1e-6)


@pytest.mark.parametrize("size", SIZES)
def test_blur_taps_are_the_references(size):
  for j, sigma in enumerate(GOLDEN["factors/sigma"]):
    taps = host_ops.blur_taps(size, sigma)
    expected = GOLDEN[f"taps/{size}/{j}"]
    np.testing.assert_allclose(taps, expected, rtol=2e-5, atol=1e-9)


@both_placements
@pytest.mark.parametrize("size", SIZES)
def test_blur_spreads_a_line_by_the_references_taps_up_to_the_border(
  size, placement
):
  lines = (1, size // 2, size - 1)  # One in each channel.
  image = np.zeros((size, size, 3), np.float32)
  for channel, line in enumerate(lines):
    image[line, :, channel] = 1
  for j, sigma in enumerate(GOLDEN["factors/sigma"]):
    taps = GOLDEN[f"taps/{size}/{j}"]
    radius = len(taps) // 2
    expected = np.zeros((size + 2 * radius, 3), np.float32)
    for channel, line in enumerate(lines):
      expected[line : line + len(taps), channel] = taps
    expected = expected[radius : size + radius]
    rows = blur(placement, image, sigma)
    columns = blur(placement, image.transpose(1, 0, 2), sigma)
    # Across the line, where no border takes anything of its length.
    for across in (rows[:, size // 2], columns[size // 2]):
      np.testing.assert_allclose(across, expected, rtol=2e-5, atol=1e-9)


@both_placements
@pytest.mark.parametrize("size", [32, 96])
def test_blur_spreads_a_point_over_rows_and_columns_alike(size, placement):
  radius = host_ops.blur_radius(size)
  taps = host_ops.blur_taps(size, 1.5).numpy()
  points = ((0, 0), (size // 3, size - 1), (size // 2, radius + 1))
  image = np.zeros((size, size, 3), np.float32)
  padded = np.zeros((size + 2 * radius, size + 2 * radius, 3), np.float32)
  for channel, (row, column) in enumerate(points):
    image[row, column, channel] = 1
    window = np.s_[row : row + len(taps), column : column + len(taps), channel]
    padded[window] = np.outer(taps, taps)
  expected = padded[radius : radius + size, radius : radius + size]
  blurred = blur(placement, image, 1.5)
  np.testing.assert_allclose(blurred, expected, rtol=1e-5, atol=1e-9)


@both_placements
def test_image_too_small_to_blur_stays_as_it_is(placement):
  image = GOLDEN["32/images"][0][:19, :19]
  np.testing.assert_array_equal(blur(placement, image, 2.0), image)


@both_placements
@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("by_recipe", [False, True])
def test_chain_of_all_operations_is_the_references(size, by_recipe, placement):
  amounts = {"brightness": 0.2, "contrast": 1.4, "saturation": 1.2, "hue": 0.05}

  def chain(image):
    for name, amount in amounts.items():
      image = change_colour(placement, name, image, np.float32(amount))
      image = np.clip(image, 0, 1)
    return np.clip(solarize(placement, blur(placement, image, 1.0)), 0, 1)

  images = GOLDEN[f"{size}/images"]
  if by_recipe:
    recipes = recipe_of(
      len(images),
      jitter=True,
      order=np.arange(4, dtype=np.int32),
      amounts=np.float32(list(amounts.values())),
      blur=True,
      solarize=True,
    )
    operations = host_ops.possible(paper_view("view2"))
    actual = finisher(placement, operations)(images * 255, recipes)
  else:
    actual = np.stack([chain(image) for image in images])
  different = ~np.isclose(actual, GOLDEN[f"{size}/chain"], rtol=0, atol=1e-5)
  # Rounding may carry a value of one half across solarisation's threshold.
  np.testing.assert_array_less(np.abs(actual - 0.5)[different], 1e-5)
  assert different.mean() < 1e-3


@both_placements
@pytest.mark.parametrize("name", ["view1", "view2"])
def test_random_views_have_the_references_statistics(name, placement):
  image = np.round(GOLDEN["32/images"][0] * 255).astype(np.uint8)
  view = paper_view(name)._replace(crop_area=(1.0, 1.0), crop_aspect=(1.0, 1.0))
  views = draws(placement, image, view, 32, 4000)
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


@both_placements
@pytest.mark.parametrize(
  ("field", "changed"),
  [
    ("flip_prob", lambda image: image[:, ::-1]),
    ("grayscale_prob", lambda image: grayscale("host", image)),
    ("solarize_prob", lambda image: solarize("host", image)),
  ],
)
@pytest.mark.parametrize("probability", [0.0, 0.2, 0.5, 1.0])
def test_operation_happens_as_often_as_asked(
  field, changed, probability, placement
):
  image = noise(8, 8)
  view = plain_view(**{field: probability})
  views = draws(placement, image, view, 8, 2000)
  plain = (image / 255).astype(np.float32)
  happened = np.isclose(views, changed(plain), atol=1e-6).all((1, 2, 3))
  untouched = np.isclose(views, plain, atol=1e-6).all((1, 2, 3))
  assert np.all(happened ^ untouched)
  error = math.sqrt(probability * (1 - probability) / 2000)
  np.testing.assert_allclose(happened.mean(), probability, atol=4 * error)


def graph_ops(function, *specs) -> list[str]:
  """The types of all nodes that a function is built of."""
  concrete = tf.function(function).get_concrete_function(*specs)
  graph = concrete.graph.as_graph_def()
  nodes = [*graph.node]
  nodes += [node for item in graph.library.function for node in item.node_def]
  return [node.op for node in nodes]


def jaxpr_ops(function, *args) -> set[str]:
  def primitives(jaxpr):
    for equation in jaxpr.eqns:
      yield equation.primitive.name
      for inner in jax.extend.core.jaxprs_in_params(equation.params):
        yield from primitives(inner)

  return set(primitives(jax.make_jaxpr(function)(*args).jaxpr))


def test_only_operations_that_some_view_asks_for_are_possible():
  nothing = host_ops.possible(plain_view())
  assert nothing == host_ops.Possible(False, (), False, False, False)
  # Strength without probability, and probability without strength.
  idle = host_ops.possible(plain_view(hue=0.1), plain_view(jitter_prob=1.0))
  assert idle == nothing
  two = host_ops.possible(
    plain_view(jitter_prob=0.5, hue=0.1, blur_prob=0.1),
    plain_view(jitter_prob=0.5, contrast=0.1, flip_prob=0.5),
  )
  assert two == host_ops.Possible(True, ("contrast", "hue"), False, True, False)


def test_impossible_operations_are_not_built():
  def host(view):
    operations = host_ops.possible(view)
    recipe = crops_and_recipes(noise(32, 32), view, 32, 2)[1]
    return set(
      graph_ops(
        lambda crops: host_ops.finish(crops, recipe, operations),
        tf.TensorSpec([2, 32, 32, 3], tf.float32),
      )
    )

  branches = {"If", "StatelessIf", "Case", "StatelessCase"}
  loops = {"While", "StatelessWhile"}
  plain = host(plain_view())
  assert not plain & (branches | loops | {"MatMul", "SelectV2"})
  hue = host(plain_view(jitter_prob=0.5, hue=0.1))
  assert hue & branches
  assert hue & loops
  assert "MatMul" not in hue
  blurred = host(plain_view(blur_prob=0.5))
  assert "MatMul" in blurred
  assert not blurred & {"Case", "StatelessCase"}


def test_impossible_operations_are_not_built_on_the_device():
  def device(view):
    operations = host_ops.possible(view)
    crops, recipe = crops_and_recipes(noise(32, 32), view, 32, 2)
    recipe = host_ops.Recipe(*(np.asarray(field) for field in recipe))
    return jaxpr_ops(
      lambda crops: device_ops.finish(crops, recipe, operations), crops
    )

  dear = {"scan", "while", "cond", "dot_general", "rev", "select_n"}
  assert not device(plain_view()) & dear
  hue = device(plain_view(jitter_prob=0.5, hue=0.1))
  assert hue & {"scan", "while"}
  assert not hue & {"dot_general", "rev"}
  blurred = device(plain_view(blur_prob=0.5))
  assert "dot_general" in blurred
  assert not blurred & {"scan", "while", "cond", "rev"}


def test_all_random_numbers_of_two_views_come_from_one_draw():
  ops = graph_ops(
    lambda seed: host_ops.two_crops(
      tf.constant(noise(32, 32)),
      paper_view("view1"),
      paper_view("view2"),
      32,
      seed,
    ),
    tf.TensorSpec([2], tf.int64),
  )
  assert ops.count("StatelessRandomUniformV2") == 1


@both_placements
def test_amounts_of_brightness_are_uniform(placement):
  image = np.full((4, 4, 3), 128, np.uint8)
  view = plain_view(jitter_prob=1.0, brightness=0.4)
  change = draws(placement, image, view, 4, 2000)[:, 0, 0, 0] - 128 / 255
  assert -0.4 <= change.min() < -0.39
  assert 0.39 < change.max() <= 0.4
  np.testing.assert_allclose(change.std(), 0.8 / math.sqrt(12), atol=0.01)


@both_placements
def test_colour_operations_come_in_every_order(placement):
  # Clipping between brightness and contrast tells their orders apart.
  image = np.zeros((2, 2, 3), np.uint8)
  image[0] = 255
  view = plain_view(jitter_prob=1.0, brightness=0.4, contrast=0.4)
  recipes = recipe_of(2, jitter=True, amounts=np.float32([0.32, 1.32]))
  recipes = recipes._replace(order=np.int32([[0, 1], [1, 0]]))
  crops = np.stack([image, image]).astype(np.float32)
  brightness_first, contrast_first = finisher(
    placement, host_ops.possible(view)
  )(crops, recipes)
  # Brightness: 1 and 0.32. Contrast, of mean 0.66: 1.1088 and 0.2112.
  np.testing.assert_allclose(brightness_first[0], 1.0, atol=1e-6)
  np.testing.assert_allclose(brightness_first[1], 0.2112, atol=1e-6)
  # Contrast: 1 and 0 once clipped. Brightness: 1 and 0.32.
  np.testing.assert_allclose(contrast_first[0], 1.0, atol=1e-6)
  np.testing.assert_allclose(contrast_first[1], 0.32, atol=1e-6)
  views = draws(placement, image, view, 2, 200)
  assert len(np.unique(views.round(5), axis=0)) > 100


def test_every_order_of_the_colour_operations_is_as_likely():
  view = paper_view("view1")
  u = np.random.RandomState(0).rand(4800, 14).astype(np.float32)
  order = host_ops.draw(u, view, host_ops.possible(view)).order.numpy()
  found, counts = np.unique(order, axis=0, return_counts=True)
  assert len(found) == 24
  error = math.sqrt(4800 / 24 * 23 / 24)
  np.testing.assert_allclose(counts, 200, atol=4 * error)


@both_placements
def test_what_the_other_view_makes_possible_leaves_a_view_alone(placement):
  image = noise(40, 50)
  view = plain_view(jitter_prob=1.0, contrast=0.4, crop_area=(0.3, 1.0))
  alone = draws(placement, image, view, 32, 16)
  operations = host_ops.possible(view, paper_view("view2"))
  finish = finisher(placement, operations)
  beside = finish(*crops_and_recipes(image, view, 32, 16, operations))
  np.testing.assert_allclose(beside, alone, atol=1e-6)


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
    expected = tf.image.resize(box, (16, 16), "bicubic").numpy()
    expected = np.broadcast_to(expected, (16, 16, 3))
    actual = host_ops.crops(image, [u], [view], 16)[0]
    np.testing.assert_allclose(actual / 255, expected / 255, atol=1e-5)


@pytest.mark.parametrize("u", [0.0, 1 - 2**-23])
def test_extreme_draws_stay_inside_the_image(u):
  (crop,) = host_ops.crops(noise(7, 5), [[u] * 4], [paper_view("view1")], 8)
  assert crop.shape == (8, 8, 3)
  assert np.isfinite(crop).all()


def test_full_crop_of_the_same_size_is_the_image():
  image = noise(28, 28)
  (crop,) = host_ops.crops(image, [[0.3] * 4], [plain_view()], 28)
  np.testing.assert_allclose(crop / 255, image / 255, atol=1e-6)


@both_placements
def test_what_bicubic_overshoots_is_clipped_before_anything_else(placement):
  crop = np.full((1, 4, 4, 3), 300, np.float32)
  crop[:, :2] = -50
  view = plain_view(jitter_prob=1.0, brightness=0.5)
  recipes = recipe_of(
    1, jitter=True, order=np.int32([0]), amounts=np.float32([-0.25])
  )
  (view,) = finisher(placement, host_ops.possible(view))(crop, recipes)
  np.testing.assert_allclose(view[2:], 0.75, atol=1e-6)
  recipes = recipes._replace(amounts=np.float32([[0.25]]))
  view = plain_view(jitter_prob=1.0, brightness=0.5)
  (view,) = finisher(placement, host_ops.possible(view))(crop, recipes)
  np.testing.assert_allclose(view[:2], 0.25, atol=1e-6)


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
  actual = host_ops.eval_image(image, 24, crop)
  np.testing.assert_allclose(actual, np.clip(expected, 0, 1), atol=1e-6)


def test_gray_eval_image_gets_three_equal_channels():
  image = host_ops.eval_image(noise(28, 28, 1), 28, 1.0).numpy()
  assert image.shape == (28, 28, 3)
  np.testing.assert_array_equal(image[..., 0], image[..., 2])


@both_placements
@pytest.mark.parametrize(
  "shape", [(40, 50, 3), (40, 50, 1), (5, 500, 3), (1, 1, 3)]
)
def test_any_image_becomes_a_view_in_range(shape, placement):
  views = draws(placement, noise(*shape), paper_view("view2"), 32, 64)
  assert views.shape == (64, 32, 32, 3)
  assert views.dtype == np.float32
  assert views.min() >= 0
  assert views.max() <= 1


@both_placements
def test_jitter_without_any_strength_changes_nothing(placement):
  image = noise(8, 8)
  view = draws(placement, image, plain_view(jitter_prob=1.0), 8, 1)[0]
  np.testing.assert_allclose(view, image / 255, atol=1e-6)


def test_eager_crop_is_the_one_inside_tf_data():
  image = noise(40, 50)
  view = paper_view("view2")
  mapped, recipes = crops_and_recipes(image, view, 32, 8)
  for i in range(8):
    seed = tf.constant([0, i], tf.int64)
    eager, _, u, _ = host_ops.two_crops(image, view, view, 32, seed)
    np.testing.assert_allclose(eager / 255, mapped[i] / 255, atol=1e-6)
    recipe = host_ops.draw(u, view, host_ops.possible(view))
    for field, of_all in zip(recipe, recipes, strict=True):
      np.testing.assert_allclose(field, of_all[i], rtol=1e-6)


def recipes_like(count) -> tuple[np.ndarray, host_ops.Recipe]:
  """Crops of 32 pixels and recipes, of which some ask for all there is."""
  view = paper_view("view2")._replace(blur_prob=0.5, solarize_prob=0.5)
  return crops_and_recipes(noise(40, 50), view, 32, count)


@both_placements
def test_compiled_views_are_those_that_are_not(placement):
  crops, recipes = recipes_like(24)
  operations = host_ops.possible(paper_view("view2"))
  compiled = finisher(placement, operations)(crops, recipes)
  plain = finisher(placement, operations, jitted=False)(crops, recipes)
  # Four colour operations and a blur each add a rounding error.
  np.testing.assert_allclose(compiled, plain, atol=2e-6)


@both_placements
def test_view_does_not_depend_on_what_is_finished_beside_it(placement):
  crops, recipes = recipes_like(10)
  finish = finisher(placement, host_ops.possible(paper_view("view2")))
  whole = finish(crops, recipes)
  for n in (1, 2, 5):
    parts = [
      finish(
        crops[i : i + n],
        host_ops.Recipe(*(field[i : i + n] for field in recipes)),
      )
      for i in range(0, 10, n)
    ]
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-6)
    if placement == "host":  # Which takes them one by one.
      np.testing.assert_array_equal(np.concatenate(parts), whole)


def two_views(image, view1, view2, seed) -> tuple[np.ndarray, np.ndarray]:
  seed = tf.constant(seed, tf.int64)
  operations = host_ops.possible(view1, view2)
  crop1, crop2, u1, u2 = host_ops.two_crops(image, view1, view2, 32, seed)
  finish = finisher("host", operations)
  return tuple(
    finish(crop[None], host_ops.draw(u[None], view, operations))[0]
    for crop, u, view in ((crop1, u1, view1), (crop2, u2, view2))
  )


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
    lambda i: host_ops.two_crops(image, view, view, 4, tf.stack([0, i]))
  )
  crop1, crop2, u1, u2 = next(dataset.batch(1000).as_numpy_iterator())
  operations = host_ops.possible(view)
  first, second = (
    finisher("host", operations)(crops, host_ops.draw(u, view, operations))
    for crops, u in ((crop1, u1), (crop2, u2))
  )
  correlation = np.corrcoef(first[:, 0, 0, 0], second[:, 0, 0, 0])[0, 1]
  assert abs(correlation) < 4 / math.sqrt(1000)


def test_random_numbers_of_two_views_do_not_correlate():
  image, view = tf.constant(noise(4, 4)), plain_view()
  dataset = tf.data.Dataset.range(2000).map(
    lambda i: host_ops.two_crops(image, view, view, 4, tf.stack([0, i]))[2:]
  )
  u1, u2 = next(dataset.batch(2000).as_numpy_iterator())
  correlation = np.corrcoef(np.concatenate([u1, u2], axis=1).T)
  np.fill_diagonal(correlation, 0)
  np.testing.assert_array_less(np.abs(correlation), 5 / math.sqrt(2000))


def test_changing_one_view_leaves_the_other_alone():
  image, view = noise(40, 50), paper_view("view1")
  _, second = two_views(image, view, view, [0, 7])
  _, again = two_views(image, view._replace(hue=0.0), view, [0, 7])
  np.testing.assert_array_equal(second, again)
