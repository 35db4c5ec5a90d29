"""Trackers: runs and sweeps in TensorBoard or MLflow, once they have ended, from their files."""
