"""Vision towers: patches of pictures and frames in, features out."""
