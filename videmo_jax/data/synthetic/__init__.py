"""A synthetic Emo-CFG: rendered faces in motion, so that everything runs without the licensed data.

scene (the latent description) -> render (frames) and questions (text) -> write (the official layout).
"""
