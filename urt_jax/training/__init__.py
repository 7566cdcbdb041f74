"""Train state, optimizer, jitted steps, rollouts and the training loop."""
