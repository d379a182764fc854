"""What goes with the weights on a model hub: a configuration and a card."""

import json
import os
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import byol_jax
from byol_jax.config import schema
from byol_jax.evaluation import results
from byol_jax.interop import encoder_settings, timm_names, torch_files
from byol_jax.training.runs import Run


class Card(NamedTuple):
  """What the card of an encoder is made of.

  Attributes:
    run: that trained the encoder.
    step: updates that it was trained for.
    features: D.
    parameters: their number.
    effect: of PyTorch's padding; None if it is the encoder's own, or torchvision
      and timm have no such architecture.
  """

  run: Run
  step: int
  features: int
  parameters: int
  effect: torch_files.PaddingEffect | None


def config_text(card: Card) -> str:
  """Returns `config.json`: what timm reads, and under `byol_jax` our settings."""
  config = card.run.config
  data = config.data
  model = timm_names.model(config) or timm_names.Model(
    torch_files.timm_name(config) or config.model.encoder.name,
    {},
    "conv1",
    "fc",
  )
  contents = {
    "architecture": model.architecture,
    "model_args": model.args,
    "num_classes": 0,
    "num_features": card.features,
    "global_pool": "avg",
    "pretrained_cfg": {
      "input_size": [data.channels, *schema.image_shape(data)],
      "fixed_input_size": "img_size" in model.args,
      "interpolation": "bicubic",
      "crop_pct": data.eval_crop,
      "crop_mode": "center",
      "mean": list(data.mean),
      "std": list(data.std),
      "num_classes": 0,
      "first_conv": model.first_conv,
      "classifier": model.classifier,
      "license": config.export.licence or "unknown",
    },
    "byol_jax": {"step": card.step, "config": encoder_settings.of(config)},
  }
  return json.dumps(contents, indent=2) + "\n"


def card_text(card: Card) -> str:
  """Returns `README.md`, whose code runs in the folder."""
  config = card.run.config
  encoder, dataset = config.model.encoder, card.run.source.dataset
  library = "timm" if torch_files.timm_name(config) else "byol_jax"
  height, width = schema.image_shape(config.data)
  return f"""---
license: {config.export.licence or "unknown"}
library_name: {library}
pipeline_tag: image-feature-extraction
tags:
- byol
- self-supervised-learning
- resnet
- jax
- pytorch
---

# {encoder.name}, trained by BYOL on {_name(dataset.tfds_name)}

This encoder maps an image to {card.features:,} features.
[BYOL](https://arxiv.org/abs/2006.07733) trained it without labels, in byol_jax
{byol_jax.__version__}.

{_table(_facts(card))}

## Evaluation

{_evaluation(card)}

## Use it

Run the code in this folder. `images` is an array of bytes, [B, {height}, {width}, {config.data.channels}].

JAX, exactly as trained:

```python
from byol_jax.interop import encoder_file

encoder = encoder_file.load("encoder.safetensors")
features = encoder.encode(images)
```

PyTorch, exactly as trained{_in_float32(config.train.precision)}:

```python
import torch
import torch_encoder

encoder = torch_encoder.load()
with torch.inference_mode():
  features = encoder(torch.from_numpy(images).permute(0, 3, 1, 2))
```

{_plain_loaders(card)}"""


def _name(dataset: str) -> str:
  """Returns the name of a data set; of a path only its last part."""
  return os.path.basename(dataset) if os.path.isabs(dataset) else dataset


def _table(rows: Mapping[str, Any]) -> str:
  lines = [f"| {name} | {value} |" for name, value in rows.items()]
  return "\n".join(["| | |", "|---|---|", *lines])


def _facts(card: Card) -> dict[str, str]:
  """Returns what is known of an encoder, by name."""
  run, config = card.run, card.run.config
  data, encoder = config.data, config.model.encoder
  (height, width), batch = schema.image_shape(data), config.train.batch_size
  facts = {
    "architecture": f"{encoder.name}, width {encoder.width:g}, {encoder.version},"
    f" {encoder.stem} stem, {encoder.pooling} pooling",
    "parameters": f"{card.parameters:,}",
    "images": f"{height} x {width} x {data.channels}; the central region of this"
    f" aspect, {data.eval_crop:.1%} of the sides of the largest, resized bicubically"
    " without antialiasing",
    "mean, std": f"{_numbers(data.mean)}; {_numbers(data.std)}",
    "padding": encoder.padding,
    "data": f"{_name(run.source.dataset.tfds_name)},"
    f" {run.source.dataset.pretrain}, {run.plan.num_examples:,} images",
    "budget": f"{card.step:,} updates of {batch:,} images, that is"
    f" {card.step * batch:,} images or"
    f" {card.step * batch / run.plan.num_examples:,.1f} epochs",
    "licence": config.export.licence or "unknown",
  }
  if encoder.init_from:
    facts["started from"] = os.path.basename(encoder.init_from)
  return facts


def _evaluation(card: Card) -> str:
  """Returns a table of the results of this step and of the baselines."""
  rows = [
    f"| {name} | {result['value']:.4f} | {_interval(result)} |"
    f" {_name(result['dataset'])}, {result['split']}, {result['examples']:,} images"
    f" | {_name(result['dataset'])}, {result['train_split']} | {result['network']} |"
    for name, result in results.read(card.run.workdir).items()
    if result["network"] != results.NETWORKS[results.ONLINE]
    or result["step"] == card.step
  ]
  if not rows:
    return f"Step {card.step} was not evaluated."
  head = (
    "| protocol/metric | value | 95% interval | measured on | classifier fitted on |"
    " network |"
  )
  return "\n".join(
    [
      "Top-1 and the like are fractions. The classifiers see frozen features, except",
      "in `finetune` and `semi_supervised`, which train the encoder, too.",
      "",
      head,
      "|---" * head.count(" |") + "|",
      *rows,
    ]
  )


def _interval(result: Mapping[str, Any]) -> str:
  return "{} to {}".format(*result["interval"]) if "interval" in result else ""


def _numbers(values: Any) -> str:
  return " ".join(f"{value:g}" for value in values)


def _in_float32(precision: str) -> str:
  return "" if precision == "float32" else f" but in float32, not {precision}"


def _plain_loaders(card: Card) -> str:
  """Returns the section on torchvision and timm."""
  config = card.run.config
  if not torch_files.timm_name(config):
    causes = ", ".join(torch_files.differences(config))
    return (
      "torchvision and timm have no such architecture"
      f" ({causes}), so their own ResNets cannot load it.\n"
    )
  return "\n".join(_plain_code(card))


def _plain_code(card: Card) -> Iterator[str]:
  config, effect = card.run.config, card.effect
  if effect is None:
    yield "torchvision and timm compute the same."
  else:
    yield (
      "torchvision and timm load the weights, too, but pad layers of stride 2 in"
      f" another way. That changes the features by {effect.mean:.1%} of their norm"
      f" on average and by {effect.largest:.1%} at most, on {effect.images} images"
      f" of {_name(card.run.source.dataset.tfds_name)}, {effect.split}. Use"
      " `torch_encoder` for the accuracy above."
    )
  yield f"""Both take normalised images:

```python
import torch

mean, std = torch.tensor({list(config.data.mean)}), torch.tensor({list(config.data.std)})
normalised = ((torch.from_numpy(images) / 255 - mean) / std).permute(0, 3, 1, 2)
```
"""
  if name := torch_files.torchvision_name(config):
    yield f"""torchvision:

```python
import torchvision
from safetensors.torch import load_file

encoder = torchvision.models.{name}()
encoder.fc = torch.nn.Identity()
encoder.load_state_dict(load_file("model.safetensors"))
with torch.inference_mode():
  features = encoder.eval()(normalised)
```
"""
  yield """timm:

```python
import timm

encoder = timm.create_model("local-dir:.", pretrained=True)
with torch.inference_mode():
  features = encoder.eval()(normalised)
```
"""
