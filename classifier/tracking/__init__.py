"""Trackers: runs and sweeps in TensorBoard or MLflow, from their files, or while they go on."""
