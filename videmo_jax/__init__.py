"""VidEmo in JAX: the Qwen2.5-VL architecture, curriculum SFT, affective-tree RL and evaluation for TPUs."""
