"""Asking a judge: its texts, the verdicts in them, and the Python API."""
