"""A synthetic Emo-CFG: rendered faces in motion, so that everything runs without the licensed data.

scene (the latent description) -> render (frames) and questions (text) -> write (the official layout).
"""

from videmo_jax.data.synthetic.render import render
from videmo_jax.data.synthetic.scene import Scene, draw_scene
from videmo_jax.data.synthetic.write import SyntheticError, write_synthetic

__all__ = ["Scene", "SyntheticError", "draw_scene", "render", "write_synthetic"]
