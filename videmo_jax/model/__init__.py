"""Qwen2.5-VL in Flax NNX: configuration, positions, vision tower, decoder and the whole."""
