"""A folder as people have them: two thousand real images, a few of them broken."""

import itertools
import json
import os

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from tests import command_line
from tests.image_folders import encoded

IMAGES = 2000
BROKEN = 20  # 1%, of six kinds.
STEPS = 4


FORMS = {
  "a.jpg": lambda image: encoded(image, "JPEG"),
  "b.JPEG": lambda image: encoded(image.convert("L"), "JPEG"),
  "c.png": lambda image: encoded(image.convert("RGBA"), "PNG"),
  "d e.png": lambda image: encoded(image.convert("P"), "PNG"),
  "é漢.jpg": lambda image: encoded(image.convert("CMYK"), "JPEG"),
  "f.bmp": lambda image: encoded(image, "BMP"),
  "g.gif": lambda image: encoded(image, "GIF"),
  "h.jpg": lambda image: encoded(image.resize((4, 3)), "JPEG"),
  "i.jpg": lambda image: encoded(image.resize((400, 12)), "JPEG"),
}
BREAKS = {
  "empty.jpg": lambda data: b"",
  "text.jpg": lambda data: b"These are not the pixels you are looking for.",
  "cut.jpg": lambda data: data[: len(data) // 2],
  "header.jpg": lambda data: data[:24],
  "noise.jpg": lambda data: bytes(range(256)) * 8,
  "page.png": lambda data: b"<html><body>404</body></html>",
}


def write_folder(root, labelled) -> set[str]:
  """Crops of two photographs, a class each; returns which files are broken."""
  photographs = [Image.fromarray(p) for p in load_sample_images().images]
  rng = np.random.RandomState(0)
  forms, breaks = itertools.cycle(FORMS), itertools.cycle(BREAKS)
  broken = set()
  for i in range(IMAGES):
    photograph = photographs[i % 2]
    x, y = rng.randint(0, 500), rng.randint(0, 300)
    image = photograph.crop((x, y, x + 60, y + 48))
    form = next(forms)
    name, data = form, FORMS[form](image)
    if i % (IMAGES // BROKEN) == 7:
      name = next(breaks)
      data = BREAKS[name](encoded(image, "JPEG"))
    place = ("china", "flower")[i % 2] if labelled else f"roll {i % 3}"
    path = os.path.join(place, f"{i:04d} {name}")
    if name in BREAKS:
      broken.add(path)
    (root / place).mkdir(parents=True, exist_ok=True)
    (root / path).write_bytes(data)
  assert len(broken) == BROKEN
  return broken


@pytest.mark.slow
@pytest.mark.parametrize("labelled", [True, False])
def test_folder_with_broken_files_pretrains_and_loses_no_good_one(
  tmp_path, labelled
):
  broken = write_folder(tmp_path / "photos", labelled)
  done = command_line.run(
    "--config=experiments/folder.py",
    f"--config.data.root={tmp_path / 'photos'}",
    f"--config.data.labels={'folders' if labelled else 'none'}",
    "--config.data.test_share=0.1",
    *command_line.TINY[1:3],
    "--config.train.batch_size=32",
    f"--config.train.steps={STEPS}",
    "--config.log.diagnose=False",
    "--config.evaluation.baselines=False",
    f"--workdir={tmp_path / 'run'}",
    data_dir=str(tmp_path / "data"),
  )
  assert done.returncode == 0, done.stderr
  listed = (tmp_path / "run" / "broken_files.txt").read_text().splitlines()
  assert {line.split("\t")[0] for line in listed} == broken
  good = IMAGES - BROKEN
  held_out = round(good / 2 * 0.1) * 2 if labelled else 0
  assert f"{good - held_out} images to pretrain on" in done.stdout
  assert "views of 64x64x3; stem cifar" in done.stdout

  results = json.loads((tmp_path / "run" / "results.json").read_text())
  protocols = {result["protocol"] for result in results.values()}
  assert (tmp_path / "run" / "figures" / "neighbours.png").exists()
  if labelled:
    assert protocols == {"retrieval", "knn", "linear"}
    assert results["linear/top1"]["examples"] == held_out
    assert results["linear/top1"]["value"] > 0.6
  else:
    assert protocols == {"retrieval"}
    assert results["retrieval/nearest_cosine"]["examples"] == good
