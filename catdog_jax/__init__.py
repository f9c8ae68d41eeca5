"""Cats and dogs told apart: VGG16 features in JAX, a small trained head, one deployable ONNX file."""

import os

__version__ = "0.1.0"

# ONNX Runtime reports to Microsoft unless this is set before it is imported. Here, because no
# module of the package, and no process that it starts, comes before this line. Who sets the
# variable, to 0 for instance, is obeyed.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
