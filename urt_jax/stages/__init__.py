"""One story a file: each stage of the recipe from its config to its run folder."""
