"""Evaluation of a judge: protocols, pairwise judging, blind baselines, the HTML report."""
