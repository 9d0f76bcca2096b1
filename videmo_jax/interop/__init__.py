"""Weights in and out: Hugging Face directories to checkpoints and back."""
