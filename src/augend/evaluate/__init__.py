"""Judging networks: predictions, metrics, loading a trained model."""
