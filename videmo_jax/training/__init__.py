"""What SFT and RL share: checkpoints, optimizer, state, loop and metrics."""
