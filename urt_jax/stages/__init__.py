"""The stages of the recipe, one per file, each from its config to its run folder."""
