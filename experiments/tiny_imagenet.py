"""ResNet-18 with a 3x3 stem on Tiny ImageNet: 100,000 images of 64 pixels.

    python -m byol_jax.main --config=experiments/tiny_imagenet.py --config.data.root=DIR

tfds does not have these images. DIR is the folder tiny-imagenet-200 of
http://cs231n.stanford.edu/tiny-imagenet-200.zip, after one command that sorts the
images to test on into folders of classes, and leaves those without a class in none:

    cd DIR && while read -r file class rest; do mkdir -p val/$class && \\
      mv val/images/$file val/$class/; done < val/val_annotations.txt && \\
      mv test/images/* test/

The settings are those of Ermolov et al. 2021 (arXiv 2007.06346; htdt/self-supervised
at d9662c8) for 1000 epochs of Adam, but for the end of the schedule, where our rate
falls over the last fifth and theirs in two steps in the last twentieth, and for the
stem, where theirs also pools. There is no published number that we could check (table 1
of the paper has one), and we have not run this experiment.
"""

from byol_jax.config import default_config


def get_config():
  config = default_config()
  config.data.dataset = "folder"
  config.data.image_size = 64
  config.data.mean = ()
  config.data.std = ()
  config.data.eval_crop = 1.0
  for view in (config.augment.view1, config.augment.view2):
    view.crop_area = (0.2, 1.0)
    view.saturation = 0.4
    view.grayscale_prob = 0.1
    view.blur_prob = 0.0
    view.solarize_prob = 0.0
  config.model.encoder.name = "ResNet18"
  config.model.encoder.stem = "cifar"
  config.model.projector.hidden_size = 1024
  config.model.projector.output_size = 128
  config.model.predictor.hidden_size = 1024
  config.ema.base = 0.99
  config.ema.same_start = True
  config.optimizer.name = "adam"
  config.optimizer.schedule = "wsd"
  config.optimizer.base_learning_rate = 1e-3  # 2e-3 at batch 512.
  config.optimizer.weight_decay = 1e-6
  config.optimizer.warmup_epochs = 2.56  # 500 steps.
  config.train.batch_size = 512
  return config
