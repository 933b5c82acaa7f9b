"""Every analysis at every edge: the reference's answer, or a clear error; never something else."""
