"""One thread a process: pytest runs two, and tiny matrices gain nothing from more."""

import os

os.environ["OMP_NUM_THREADS"] = "1"

#: Each test has a store of its own.
os.environ.pop("MLFLOW_TRACKING_URI", None)

#: A program that other tests start, once for each rank.
collect_ignore = ["ranks.py"]
