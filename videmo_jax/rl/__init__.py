"""Affective-tree reinforcement learning: rewards, rollout, GRPO loss and step (PAPER.md section 3)."""
