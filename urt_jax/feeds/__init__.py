"""What training is fed with: records to batches, questions to rollouts."""
