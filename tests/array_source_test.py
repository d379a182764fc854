"""A file of arrays is the data set that it was written from."""

import dataclasses
import itertools
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from byol_jax import errors
from byol_jax.augment import spec
from byol_jax.config import schema
from byol_jax.data import array_file, array_source, images
from byol_jax.data.source import CentreCrop, Pairs, RandomCrop
from tests import command_line, input_cases

SMALL = np.zeros((3, 4, 5), np.uint8)


@pytest.fixture(scope="module")
def arrays(source, tmp_path_factory):
  path = tmp_path_factory.mktemp("arrays") / "arrays.npz"
  splits = {"train": source.decode("train", 3)}
  about = array_file.About(source.class_names, statistics=source.measure())
  array_file.write(path, splits, about)
  return array_source.load(str(path))


EXPRESSIONS = (
  *("train", "train[:10%]", "train[90%:]", "train[-20%:]", "train[:-3]"),
  *("train[5:20]", "train[-5:]+train[2:9]", "train[33%:66%]", "train + train"),
)


@pytest.mark.parametrize("split", EXPRESSIONS)
def test_expressions_mean_what_they_mean_in_tfds(source, arrays, split):
  assert arrays.num_examples(split) == source.num_examples(split)
  size = arrays.num_examples(split)
  if size:
    ours, theirs = (x.decode(split, 3).labels for x in (arrays, source))
    np.testing.assert_array_equal(ours, theirs)
  assert arrays.num_shared(split, "train[:50%]") == source.num_shared(
    split, "train[:50%]"
  )


OTHERS = ("tain", "train[", "train[1.5:]", "", "train+")


@pytest.mark.parametrize("split", [*OTHERS, "train[:98]", "train[-98:]"])
def test_other_expressions_are_refused_as_by_tfds(source, arrays, split):
  for data_set in (source, arrays):
    with pytest.raises(errors.UserError, match="split"):
      data_set.num_examples(split)


def test_what_is_known_of_the_data_set_is_kept(source, arrays):
  assert list(arrays.class_names) == list(source.class_names)
  assert arrays.dataset.statistics == source.measure()
  assert arrays.measure() == source.measure()
  assert arrays.dataset.test == ""
  assert arrays.select("train[:10]", 0.5).dataset.pretrain == "train[0:5]"
  with pytest.raises(errors.UserError, match="selects no images"):
    arrays.select("train[:0]", 1.0)


@pytest.mark.parametrize("process_count", [1, 2])
def test_evaluations_see_the_same_images(source, arrays, process_count):
  for index in range(process_count):
    process = dataclasses.replace(
      input_cases.train_input.WHOLE_BATCH, index=index, count=process_count
    )
    ours, theirs = (
      list(
        x.eval_batches(
          "train[3:90]",
          CentreCrop((16, 16), 0.875),
          batch_size=10,
          indices=range(2, 77),
          process=process,
        )
      )
      for x in (arrays, source)
    )
    for a, b in zip(ours, theirs, strict=True):
      np.testing.assert_array_equal(a["label"], b["label"])
      np.testing.assert_allclose(a["image"], b["image"], atol=1e-4)


@pytest.mark.parametrize("indices", [range(7, 60), np.array([5, 90, 3, 44])])
def test_classifiers_train_on_the_same_crops(source, arrays, indices):
  options = schema.DataConfig(cache_bytes=2**30)
  ours, theirs = (
    list(
      itertools.islice(
        x.labelled_batches(
          "train",
          indices,
          RandomCrop((12, 12), spec.Crop()),
          options,
          batch_size=10,
          seed=3,
        ),
        12,
      )
    )
    for x in (arrays, source)
  )
  for a, b in zip(ours, theirs, strict=True):
    np.testing.assert_array_equal(a["label"], b["label"])
    np.testing.assert_allclose(a["image"], b["image"], atol=1e-4)


def test_batches_compile_nothing_after_the_first(arrays, compiled):
  """Small operations one by one took thirty times as long as a whole batch."""
  views = spec.Views(spec.View(), spec.View(), (12, 12))
  options = schema.DataConfig()
  crop = RandomCrop((12, 12), spec.Crop())
  each = {"batch_size": 10, "seed": 3}
  for batches in (
    arrays.labelled_batches("train", range(60), crop, options, **each),
    arrays.many_views("train", views, options, pairs=Pairs(20, 2), **each),
  ):
    next(batches)
    before = len(compiled)
    for _ in range(8):  # More than an epoch.
      next(batches)
    assert len(compiled) == before


def test_arrays_of_different_sizes_are_joined(tmp_path):
  rng = np.random.RandomState(0)
  small, large = (rng.randint(1, 256, (n, n, 3), np.uint8) for n in (4, 9))
  packed = images.pack([small, large], [0, 1])
  assert packed.pixels.shape == (2, 9, 9, 3)
  np.testing.assert_array_equal(packed.pixels[0, :4, :4], small)
  assert not packed.pixels[0, 4:].any()
  both = array_file.joined([packed, images.pack([small], [2])])
  np.testing.assert_array_equal(both.sizes, [(4, 4), (9, 9), (4, 4)])
  np.testing.assert_array_equal(both.pixels[2, :4, :4], small)


def test_plain_arrays_are_enough(tmp_path):
  path = tmp_path / "plain.npz"
  np.savez(path, train_images=SMALL, train_labels=np.array([0, 2, -1]))
  source = array_source.load(str(path))
  assert source.class_names == ["0", "1", "2"]
  assert source.decode("train", 3).pixels.shape == (3, 4, 5, 3)
  np.savez(path, train_images=SMALL)
  assert array_source.load(str(path)).num_classes == 0


@pytest.mark.parametrize(
  ("arrays", "problem"),
  [
    ({}, "holds no train_images, only nothing"),
    ({"images": SMALL}, "holds no train_images, only images"),
    ({"train_images": SMALL + 0.5}, "train_images is float64[3, 4, 5], but"),
    ({"train_images": SMALL[:0]}, "with at least one image"),
    (
      {"train_images": SMALL, "train_labels": np.zeros(2, int)},
      "train_labels is int64[2], but must be whole numbers[3]",
    ),
    (
      {"train_images": SMALL, "train_sizes": np.full((3, 2), 9)},
      "train_sizes is int64[3, 2]",
    ),
    (
      {
        "train_images": SMALL,
        "train_labels": np.array([0, 1, 5]),
        "class_names": np.array(["a", "b"]),
      },
      "labels must lie from -1 to 1",
    ),
    (
      {"train_images": SMALL, "train_labels": np.array([0, 1, -2])},
      "labels must lie from -1",
    ),
    ({"train_images": np.array([object()])}, "Object arrays cannot be loaded"),
    ({"train_images": SMALL, "about": np.array("{")}, "'about' is damaged"),
  ],
)
def test_arrays_that_do_not_belong_together_are_refused(
  tmp_path, arrays, problem
):
  path = tmp_path / "bad.npz"
  np.savez(path, **arrays)
  with pytest.raises(errors.UserError) as info:
    array_source.load(str(path))
  assert problem in str(info.value)
  assert str(path) in str(info.value)
  assert "\n" not in str(info.value)


@pytest.mark.parametrize("content", [None, b"", b"text", b"PK\3\4 cut"])
def test_files_that_are_no_arrays_are_refused(tmp_path, content):
  path = tmp_path / "bad.npz"
  if content is not None:
    path.write_bytes(content)
  with pytest.raises(errors.UserError, match=r"cannot be read as a \.npz"):
    array_source.load(str(path))


def test_batches_are_drawn_on_the_device_only(arrays):
  with pytest.raises(errors.UserError, match=r"set --config\.data\.placement"):
    arrays.train_batches(
      input_cases.VIEWS, schema.DataConfig(), batch_size=2, seed=0
    )


@pytest.mark.slow
def test_a_run_without_tensorflow_equals_one_with_it(tmp_path, digits_dir):
  """From the file that the program writes, with the same results."""

  def args(name, *more):
    return [
      *command_line.pretraining(tmp_path / name, steps=3, checkpoint_every=0),
      "--config.evaluation.protocols=knn,linear",
      "--config.evaluation.baselines=False",
      *more,
    ]

  on_device = "--config.data.placement=device"
  done = command_line.run(*args("file", "--mode=arrays"), data_dir=digits_dir)
  assert done.returncode == 0, done.stderr
  done = command_line.run(*args("tfds", on_device), data_dir=digits_dir)
  assert done.returncode == 0, done.stderr
  for name in ("tensorflow", "tensorflow_datasets"):
    (tmp_path / f"{name}.py").write_text("raise ImportError('not here')\n")
  path = os.pathsep.join([str(tmp_path), str(command_line.ROOT)])
  arrays = tmp_path / "file" / "arrays.npz"
  root = f"--config.data.root={arrays}"
  program = [sys.executable, "-m", "byol_jax.main"]
  done = subprocess.run(
    [
      *program,
      *args("arrays", on_device, root, "--config.data.dataset=arrays"),
    ],
    env=command_line.environment() | {"PYTHONPATH": path},
    cwd=command_line.ROOT,
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  leaves, expected = (
    command_line.saved_leaves(tmp_path / name, 3) for name in ("arrays", "tfds")
  )
  for name, leaf in expected.items():
    np.testing.assert_array_equal(leaves[name], leaf, err_msg=name)
  ours, theirs = (
    json.loads((tmp_path / name / "results.json").read_text())
    for name in ("arrays", "tfds")
  )
  assert len(ours) == 2
  for name, result in theirs.items():
    assert ours[name]["value"] == result["value"], name
