"""PyTorch, torchvision and timm, where they are installed, in a process of tests."""

import importlib.util
import sys

import pytest

# Torch does without it. Importing it crashes a process that uses TensorFlow.
sys.modules["triton"] = None  # type: ignore[assignment]

needs_extra = pytest.mark.skipif(
  not all(
    importlib.util.find_spec(name)
    for name in ("onnx", "onnxruntime", "timm", "torch", "torchvision")
  ),
  reason="the extra `interop` is not installed",
)
