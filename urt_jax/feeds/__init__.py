"""Inputs of training: batches of records, and rollouts of questions."""
