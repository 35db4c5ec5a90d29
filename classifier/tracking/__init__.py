"""Runs and sweeps told to TensorBoard or MLflow once they have ended, from their files."""
