"""The judge: responses to queries, the verdicts in them, and the Python API."""
