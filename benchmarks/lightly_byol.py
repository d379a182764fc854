"""Trains lightly's BYOL on the network, the images and the settings of a run of ours.

    python benchmarks/lightly_byol.py WORKDIR --seed=0 --out=lightly.safetensors

WORKDIR is a finished run on grey images with `data.dataset=arrays` and SGD, whose encoder
was exported with `--config.export.formats=torchvision`. Network, heads, views, batch,
length, rates and tau are read there. Its weights are not: training starts from
torchvision's initial values. The result has torchvision's names, so that
`model.encoder.init_from` reads it.

Heads, loss, transform, schedules and the moving average are lightly's. It needs lightly,
torch and safetensors, in an environment of its own, and nothing of byol_jax.
"""

import argparse
import copy
import importlib
import itertools
import json
import pathlib
import sys
import time

import numpy as np
import safetensors
import safetensors.torch
import torch
from lightly.loss import NegativeCosineSimilarity
from lightly.models import modules, utils
from lightly.transforms import byol_transform, multi_view_transform
from lightly.utils import scheduler
from PIL import Image
from torch import nn


def untrained_encoder(
  folder: pathlib.Path,
) -> tuple[nn.Module, dict[str, str]]:
  """Returns the exported network with torchvision's initial weights.

  The second result is the metadata of the exported file, such as the padding.
  """
  sys.path.insert(0, str(folder))
  torch_encoder = importlib.import_module("torch_encoder")
  with safetensors.safe_open(folder / "model.safetensors", "pt") as file:
    metadata = file.metadata()
    settings = json.loads(metadata["config"])
    tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (a file)
  encoder = torch_encoder.Encoder(tensors, settings)
  for module in encoder.modules():
    if isinstance(module, nn.Conv2d):
      nn.init.kaiming_normal_(module.weight, mode="fan_out")
  return encoder, metadata


def strengths(config: dict, view: str) -> dict:
  """Returns the arguments of lightly's transform that say what our view says."""
  own = config["augment"][view]
  return dict(
    input_size=config["data"]["image_size"],
    cj_prob=own["jitter_prob"],
    cj_bright=own["brightness"],
    cj_contrast=own["contrast"],
    cj_sat=own["saturation"],
    cj_hue=own["hue"],
    min_scale=own["crop_area"][0],
    random_gray_scale=own["grayscale_prob"],
    gaussian_blur=own["blur_prob"],
    sigmas=tuple(own["blur_sigma"]),
    solarization_prob=own["solarize_prob"],
    hf_prob=own["flip_prob"],
    normalize=None,  # The exported network normalises by itself.
  )


class Images(torch.utils.data.Dataset):
  """The images of a file of arrays, each as two views."""

  def __init__(self, config: dict):
    with np.load(config["data"]["root"]) as arrays:
      self._images = arrays["train_images"]
    self._views = multi_view_transform.MultiViewTransform(
      [
        byol_transform.BYOLView1Transform(**strengths(config, "view1")),
        byol_transform.BYOLView2Transform(**strengths(config, "view2")),
      ]
    )

  def __len__(self) -> int:
    return len(self._images)

  def __getitem__(self, i: int) -> list[torch.Tensor]:
    image = Image.fromarray(self._images[i].squeeze(-1)).convert("RGB")
    return self._views(image)


def train(config: dict, encoder: nn.Module, workers: int) -> None:
  """Trains an encoder as lightly's example of BYOL does."""
  model, batch = config["model"], config["train"]["batch_size"]
  heads = model["projector"], model["predictor"]
  size = heads[0]["output_size"]
  with torch.no_grad():
    side = config["data"]["image_size"]
    features = encoder.eval()(torch.zeros(1, 3, side, side)).shape[1]
  projector = modules.BYOLProjectionHead(
    features, heads[0]["hidden_size"], size
  )
  predictor = modules.BYOLPredictionHead(size, heads[1]["hidden_size"], size)
  online = nn.Sequential(encoder, projector).train()
  target = copy.deepcopy(online)
  utils.deactivate_requires_grad(target)
  criterion = NegativeCosineSimilarity()

  loader = torch.utils.data.DataLoader(
    Images(config), batch, shuffle=True, drop_last=True, num_workers=workers
  )
  images, optimizer = len(loader.dataset), config["optimizer"]
  steps = config["train"]["epochs"] * images // batch
  warmup = int(optimizer["warmup_epochs"] * images / batch)
  # Its loss is a quarter of ours, plus a constant: four times the rate and a quarter
  # of the decay make the same updates.
  rate = 4 * optimizer["base_learning_rate"] * batch / 256
  sgd = torch.optim.SGD(
    [*online.parameters(), *predictor.parameters()],
    rate,
    momentum=optimizer["momentum"],
    weight_decay=optimizer["weight_decay"] / 4,
  )
  start = time.time()
  epochs = itertools.repeat(loader)
  batches = itertools.islice(itertools.chain.from_iterable(epochs), steps)
  for step, (view1, view2) in enumerate(batches):
    for group in sgd.param_groups:
      group["lr"] = rate * scheduler.cosine_warmup_schedule(
        step, steps, 1.0, 0.0, warmup, 0.0
      )
    tau = scheduler.cosine_schedule(step, steps, config["ema"]["base"], 1.0)
    with torch.no_grad():
      projections = target(view1), target(view2)
    predictions = predictor(online(view1)), predictor(online(view2))
    loss = 0.5 * (
      criterion(predictions[0], projections[1])
      + criterion(predictions[1], projections[0])
    )
    sgd.zero_grad()
    loss.backward()
    sgd.step()
    utils.update_momentum(online, target, m=tau)
    done = step + 1
    if done % 50 == 0 or done == steps:
      speed = done * batch / (time.time() - start)
      print(
        f"step {done}/{steps} loss {4 + 4 * loss.item():.2f} {speed:.0f} img/s",
        flush=True,
      )


def main() -> None:
  """Trains with the options of the command line and writes the encoder."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("workdir", type=pathlib.Path)
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--out", default="lightly.safetensors")
  parser.add_argument("--workers", type=int, default=0)
  args = parser.parse_args()
  torch.manual_seed(args.seed)
  config = json.loads((args.workdir / "config.json").read_text())
  if (config["data"]["dataset"], config["optimizer"]["name"]) != (
    "arrays",
    "sgd",
  ):
    parser.error(f"{args.workdir} is no run with data.dataset=arrays and SGD.")
  folder = args.workdir / "encoder" / "torchvision"
  encoder, metadata = untrained_encoder(folder)
  train(config, encoder, args.workers)
  safetensors.torch.save_file(encoder.state_dict(), args.out, metadata)


if __name__ == "__main__":
  main()
