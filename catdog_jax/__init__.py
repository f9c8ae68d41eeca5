"""Cats and dogs told apart: VGG16 features in JAX, a small trained head, one deployable ONNX file."""

__version__ = "0.1.0"
