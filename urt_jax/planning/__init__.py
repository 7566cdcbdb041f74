"""What a machine could do at best, and what it does: workloads, floors by formula, and measurements of both."""
