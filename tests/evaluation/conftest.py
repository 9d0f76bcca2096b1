"""A synthetic set and a random checkpoint, as small as they come, shared by all tests of a session."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from videmo_jax.data.inputs import InputSpec
from videmo_jax.data.synthetic import write_synthetic
from videmo_jax.data.tokenizer import Tokenizer
from videmo_jax.data.video import FrameSpec
from videmo_jax.model.config import ModelConfig, TextConfig, VisionConfig
from videmo_jax.model.videmo import abstract_model
from videmo_jax.training.checkpoint import Checkpoints, Meta

CONFIG = ModelConfig(
    TextConfig(32, 2, 4, 2, 8, 48, 2100, (1, 1, 2), tied=True, max_positions=2048),
    VisionConfig(24, 2, 2, 40, 32, full_attention=(1,)),
)
INPUTS = InputSpec(FrameSpec(max_frames=4, min_pixels=56 * 56, max_pixels=56 * 56))


def write_checkpoint(folder, seed=0):
    """A checkpoint with weights so large that every answer depends on all before it."""
    rng = np.random.default_rng(seed)
    params = jax.tree.map(
        lambda p: jnp.asarray(rng.normal(0, 0.3 if p.ndim > 2 else 1, p.shape), jnp.float32),
        nnx.state(abstract_model(CONFIG), nnx.Param),
    )
    meta = Meta(CONFIG, 7, INPUTS.to_json(), {"made": "for a test"})
    with Checkpoints(folder, keep=1) as checkpoints:
        checkpoints.save(meta, Tokenizer.embedded().files, params, {"count": jnp.zeros(1)}, {"row": 0})
    return folder


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="session")
def dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "synthetic"
    write_synthetic(root, scenes=85, seed=0, size=64, frames=4)
    return root
