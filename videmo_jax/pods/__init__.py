"""TPU pods: slices, and what starts a command on all their hosts (queued resources, GKE)."""
