"""Affective-tree reinforcement learning (PAPER.md section 3)."""
