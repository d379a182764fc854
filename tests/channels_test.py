"""Images of 16 bits and of channels that are no colours."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from byol_jax import config, errors, load_encoder
from byol_jax.augment import device_ops, sampling, spec
from byol_jax.cli import messages
from byol_jax.config import convert, schema
from byol_jax.data import array_source
from byol_jax.data.source import CentreCrop, RandomCrop
from byol_jax.evaluation import runner
from byol_jax.interop import exports, images
from byol_jax.reporting import style
from byol_jax.runtime import tables
from byol_jax.training import data_streams, loop, resolve, runs
from tests.augment_cases import plain_view

BANDS, SIDE = 4, 8


def bands(count, seed=0) -> np.ndarray:
  """Images [count, 8, 8, 4] uint16 of 12 bits."""
  rng = np.random.RandomState(seed)
  return rng.randint(0, 4096, (count, SIDE, SIDE, BANDS)).astype(np.uint16)


def save(folder, **arrays) -> str:
  path = folder / "images.npz"
  labels = {
    f"{name}_labels": np.arange(len(arrays[f"{name}_images"])) % 3
    for name in ("train", "test")
    if f"{name}_images" in arrays
  }
  np.savez(path, **(labels | arrays))
  return str(path)


@pytest.mark.parametrize("white", [None, 4095])
def test_no_value_of_16_bits_is_lost(tmp_path, white):
  raw = bands(5)
  extra = {} if white is None else {"white": np.array(white)}
  source = array_source.load(save(tmp_path, train_images=raw, **extra))
  pixels = source.decode("train", BANDS).pixels
  assert pixels.dtype == np.uint16
  scale = 65_535 if white is None else white
  np.testing.assert_allclose(pixels / 65_535, raw / scale, atol=1e-5)
  assert len(np.unique(pixels)) == len(np.unique(raw))
  statistics = source.measure()
  np.testing.assert_allclose(
    statistics.mean, (raw / scale).mean((0, 1, 2)), atol=1e-4
  )
  np.testing.assert_allclose(
    statistics.std, (raw / scale).std((0, 1, 2)), atol=1e-4
  )


def test_views_and_evaluations_see_all_bits(tmp_path):
  raw = bands(6)
  source = array_source.load(save(tmp_path, train_images=raw))
  whole = spec.Views(plain_view(), plain_view(), (SIDE, SIDE), BANDS, "device")
  originals, batch = source.first_views(
    whole, schema.DataConfig(), count=6, seed=0
  )
  finished = device_ops.apply_to_batch(whole, batch)
  for name in ("view1", "view2"):
    np.testing.assert_allclose(
      finished[name], np.array(originals) / 65_535, atol=1e-7
    )
  (seen,) = source.eval_batches(
    "train", CentreCrop((SIDE, SIDE), 1.0, BANDS), batch_size=6
  )
  np.testing.assert_allclose(seen["image"], raw / 65_535, atol=1e-6)
  region = spec.Crop(crop_area=(1, 1), crop_aspect=(1, 1), flip_prob=0)
  (crops,) = itertools.islice(
    source.labelled_batches(
      "train",
      range(6),
      RandomCrop((SIDE, SIDE), region, BANDS),
      schema.DataConfig(),
      batch_size=6,
      seed=0,
    ),
    1,
  )
  assert sorted(crops["image"].sum((1, 2, 3))) == pytest.approx(
    sorted((raw / 65_535).sum((1, 2, 3)))
  )


def test_devices_exchange_values_of_16_bits():
  raw, rows = bands(7), jnp.array([5, 0, 6, 3])
  held = np.minimum(np.arange(8), 6).reshape(2, 4)
  taken = jax.vmap(
    lambda part: tables.take_rows(part, rows, 7, "d"), axis_name="d"
  )(jnp.asarray(raw[held]))
  assert taken.dtype == np.uint16
  np.testing.assert_array_equal(taken.reshape(4, *raw.shape[1:]), raw[rows])


def test_channels_are_changed_one_by_one():
  view = plain_view(jitter_prob=1.0, brightness=0.3, contrast=0.4)
  enabled = spec.enabled_ops(view)
  u = np.random.RandomState(0).rand(3, len(spec.RANDOM_NUMBERS))
  params = sampling.augment_params(jnp, jnp.float32(u), view, enabled)
  crops = bands(3) * 16
  changed = device_ops.apply(jnp.asarray(crops), params, enabled)
  assert changed.shape == crops.shape
  for i in range(BANDS):
    grey = device_ops.apply(jnp.asarray(crops[..., i : i + 1]), params, enabled)
    np.testing.assert_allclose(changed[..., i], grey[..., 0], atol=1e-6)
  assert np.abs(changed - crops / 65_535).max() > 0.05


@pytest.mark.parametrize(
  ("arrays", "problem"),
  [
    (
      {"train_images": bands(2).astype(np.int16)},
      "uint8 or uint16[N, H, W, C]",
    ),
    (
      {"train_images": bands(2), "test_images": bands(2).astype(np.uint8)},
      "must have one type, not uint16 and uint8",
    ),
    (
      {"train_images": bands(2), "white": np.array(0)},
      "white=0 must be a whole number from 1 to 65535",
    ),
    (
      {"train_images": bands(2), "white": np.array([1, 2])},
      "white=[1, 2] must",
    ),
    ({"train_images": bands(2), "white": np.array(0.5)}, "white=0.5 must"),
  ],
)
def test_other_arrays_are_refused_in_one_line(tmp_path, arrays, problem):
  with pytest.raises(errors.UserError) as caught:
    array_source.load(save(tmp_path, **arrays))
  assert problem in str(caught.value)
  assert "\n" not in str(caught.value)


def settings(folder, **changes):
  cfg = config.small_grey_config()
  cfg.data.dataset = "arrays"
  cfg.data.placement = "device"
  cfg.data.root = str(folder / "images.npz")
  cfg.data.channels = BANDS
  cfg.data.image_size = SIDE
  cfg.model.encoder.name = "TinyResNet"
  cfg.model.encoder.width = 0.25
  cfg.train.batch_size = 8
  cfg.train.steps = 2
  cfg.evaluation.protocols = ("knn",)
  cfg.log.diagnose = False
  return convert.updated(cfg, changes)


def test_wrong_channels_are_one_line(tmp_path):
  path = save(tmp_path, train_images=bands(9))
  source = array_source.load(path)
  for channels in (1, 3, 5):
    cfg = settings(tmp_path, **{"data.channels": channels})
    with pytest.raises(errors.UserError, match=r"must be 4, .*channels=4"):
      resolve.resolved(cfg, source, None)
    with pytest.raises(errors.UserError, match=r"must be 4, .*channels=4"):
      source.decode("train", channels)
  folder = settings(tmp_path, **{"data.dataset": "folder"})
  with pytest.raises(
    errors.UserError, match=r"must be 1 or 3 for data\.dataset=fol"
  ):
    data_streams.open_source(folder)


def test_other_channels_have_no_colours(tmp_path):
  save(tmp_path, train_images=bands(9))
  cfg = settings(
    tmp_path,
    **{
      "augment.view1.hue": 0.1,
      "augment.view2.saturation": 0.2,
      "augment.view1.grayscale_prob": 0.2,
      "augment.view1.solarize_prob": 0.1,
    },
  )
  views = resolve.resolved(cfg, data_streams.open_source(cfg), None).augment
  enabled = spec.enabled_ops(views.view1, views.view2)
  assert enabled.jitter == ("brightness", "contrast")
  assert (enabled.grayscale, enabled.solarize) == (False, True)
  assert cfg.augment.view1.hue == 0.1


def test_pictures_show_the_first_channels():
  shown = style.to_rgb(bands(1)[0])
  np.testing.assert_allclose(shown, bands(1)[0, ..., :3] / 65_535)
  assert style.to_rgb(np.zeros((2, 2, 2))).shape == (2, 2, 3)


@pytest.mark.slow
def test_a_run_on_four_bands_from_arrays_to_features(tmp_path, capsys):
  raw = bands(30)
  save(
    tmp_path,
    train_images=raw[:20],
    test_images=raw[20:],
    white=np.array(4095),
  )
  cfg = settings(tmp_path)
  config.validate(cfg)
  run = runs.prepare(cfg, tmp_path / "run")
  messages.describe_data(run)
  assert "Note: 4 channels have no colours" in capsys.readouterr().err
  state, _ = loop.pretrain(run)
  assert int(state.step) == 2
  found = runner.evaluate(run, state)
  assert {"knn/top1", "baseline/pixels_knn_top1"} <= set(found)
  exports.write(run, state, lambda line: None)
  encoder = load_encoder(tmp_path / "run")
  assert encoder.channels == BANDS
  scaled = run.source.decode("test", BANDS).pixels
  features = encoder.encode(scaled)
  np.testing.assert_allclose(
    features, encoder.encode(np.float32(raw[20:] / 4095)), atol=1e-3
  )
  np.testing.assert_allclose(
    features, encoder.encode(np.float32(scaled / 65_535)), atol=1e-5
  )
  np.testing.assert_allclose(
    features[0], encoder.encode(jnp.asarray(scaled[0])), atol=1e-4
  )
  larger = np.repeat(np.repeat(scaled, 2, 1), 2, 2)
  assert encoder.prepare(larger).shape == (10, SIDE, SIDE, BANDS)
  with pytest.raises(errors.UserError, match=r"8, 4\)"):
    encoder.encode(np.zeros((1, SIDE, SIDE, 1), np.uint8))


def test_an_encoder_of_colours_takes_16_bits():
  form = images.Form((4, 4), 3, 1.0)
  raw = np.arange(16, dtype=np.uint16).reshape(4, 4, 1) * 4000
  np.testing.assert_allclose(
    images.prepared(raw, form), raw / 65_535, atol=1e-6
  )
  with pytest.raises(errors.UserError, match="no value above 255"):
    images.prepared(raw // 4000, form)
  with pytest.raises(errors.UserError, match="uint16, which is divided"):
    images.prepared(raw.astype(np.int32), form)
