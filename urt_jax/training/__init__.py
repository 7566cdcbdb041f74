"""Train state, optimizer, jitted steps, rollouts and the loop that drives them."""
