"""Steps compiled ahead of time, for TPU slices that are not there: memory, traffic, bounds on speed."""
