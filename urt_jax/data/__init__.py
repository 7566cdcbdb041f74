"""Strings and files in, padded numpy batches out."""
