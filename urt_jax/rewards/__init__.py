"""From the text of an answer to numbers: the verdict, and the rewards computed from it."""
