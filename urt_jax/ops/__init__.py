"""Mathematics on arrays: masks, attention, rotary positions, log-probabilities, token choice."""
