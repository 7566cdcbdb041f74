"""Pure-functional Flax modules of a vision-language decoder."""
