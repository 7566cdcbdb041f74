"""Published layouts of preference data, read as records of our own schema."""
