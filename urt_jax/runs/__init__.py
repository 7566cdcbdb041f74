"""A run: its folder, its lock, its processes, preemption, and disk errors."""
