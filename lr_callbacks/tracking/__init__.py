"""The record of a run: a journal on disk first, MLflow second."""
