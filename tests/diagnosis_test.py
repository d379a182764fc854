"""Damaged files are named, whichever function reads them."""

import io

import PIL.Image
import pytest
import tensorflow as tf

from byol_jax import errors
from byol_jax.data import diagnosis, measure, train_input
from tests.input_cases import (
  OPTIONS,
  SIZE,
  VIEWS,
  eval_batches,
  train_batches,
)


def read_for_training(source):
  train_batches(source, 10)


def read_into_memory(source):
  train_batches(source, 10, cache_bytes=2**30)


def read_for_evaluation(source):
  eval_batches(source)


def read_first_views(source):
  train_input.first_views(source, VIEWS, OPTIONS, count=SIZE, seed=0)


READERS = (
  read_for_training,
  read_into_memory,
  read_for_evaluation,
  read_first_views,
  measure.measure_statistics,
)


def reading_error(reader, source) -> str:
  with pytest.raises(errors.UserError) as info:
    reader(source)
  message = str(info.value)
  assert "\n" not in message
  return message


@pytest.mark.parametrize("reader", READERS)
def test_truncated_file_is_named(copied, reader):
  source, files = copied
  content = files[2].read_bytes()
  files[2].write_bytes(content[:-100])
  message = reading_error(reader, source)
  assert f"{files[2]} is truncated" in message
  assert not any(str(file) in message for file in files if file != files[2])


def test_file_cut_off_anywhere_is_named(copied):
  source, files = copied
  content = files[2].read_bytes()
  lengths = [
    len(r) + 16
    for r in tf.data.TFRecordDataset(str(files[2])).as_numpy_iterator()
  ]
  assert sum(lengths) == len(content)
  between = sum(lengths[:-1])  # The last record is missing altogether.
  for length in (len(content) - 1, between, between + 5, lengths[0], 3):
    files[2].write_bytes(content[:length])
    message = reading_error(read_for_evaluation, source)
    assert f"{files[2]} is truncated" in message


@pytest.mark.parametrize("reader", READERS)
def test_empty_file_is_named(copied, reader):
  source, files = copied
  files[2].write_bytes(b"")
  assert f"{files[2]} is truncated" in reading_error(reader, source)


@pytest.mark.parametrize("reader", READERS)
def test_a_flipped_bit_is_found_and_its_file_named(copied, reader):
  source, files = copied
  content = bytearray(files[4].read_bytes())
  content[len(content) // 2] ^= 1
  files[4].write_bytes(content)
  assert f"{files[4]} is truncated or corrupt" in reading_error(reader, source)


@pytest.mark.parametrize("reader", READERS)
def test_a_missing_file_is_named(copied, reader):
  source, files = copied
  files[1].unlink()
  assert f"{files[1]} is missing" in reading_error(reader, source)


def png() -> bytes:
  file = io.BytesIO()
  PIL.Image.new("RGB", (9, 9)).save(file, "PNG")
  return file.getvalue()


def example_record(**features) -> bytes:
  """A serialized example as tfds stores it, of bytes and of integers."""
  return tf.train.Example(
    features=tf.train.Features(
      feature={
        name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
        if isinstance(value, bytes)
        else tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
        for name, value in features.items()
      }
    )
  ).SerializeToString()


RECORDS = {
  "fitting": example_record(image=png(), label=1),
  "no image": example_record(image=b"garbage", label=1),
  "half an image": example_record(image=png()[:40], label=1),
  "image missing": example_record(label=1),
  "label missing": example_record(image=png()),
  "label of bytes": example_record(image=png(), label=b"1"),
  "no example": b"garbage",
}


def write_records(file, record):
  count = sum(1 for _ in tf.data.TFRecordDataset(str(file)))
  with tf.io.TFRecordWriter(str(file)) as writer:
    for _ in range(count):
      writer.write(record)


def test_a_record_that_fits_is_read(copied):
  source, files = copied
  write_records(files[3], RECORDS["fitting"])
  for reader in READERS:
    reader(source)


@pytest.mark.parametrize(
  ("kind", "reader"),
  [(kind, read_for_evaluation) for kind in [*RECORDS][1:]]
  + [
    ("no image", reader) for reader in READERS if reader != read_for_evaluation
  ],
)
def test_a_record_that_does_not_fit_is_reported_with_its_file(
  copied, kind, reader
):
  source, files = copied
  write_records(files[3], RECORDS[kind])
  message = reading_error(reader, source)
  assert f"{files[3]} holds a record that does not fit" in message
  assert len(message) < 600


def test_a_stream_that_is_open_when_a_program_ends_closes_in_silence(
  monkeypatch,
):
  stream = diagnosis.explain_errors(iter([1, 2]), None, "train")
  assert next(stream) == 1
  monkeypatch.setattr(diagnosis, "tf", None)  # As Python leaves the module.
  stream.close()
