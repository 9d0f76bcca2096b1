"""PyTorch, for the tests that compare with it; where it is not installed, modules that import this are skipped."""

import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install -e '.[test,parity]'")
safetensors = pytest.importorskip("safetensors.torch")
