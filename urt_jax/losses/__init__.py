"""Training losses: each returns (sum, denominator, metrics), never a mean."""
