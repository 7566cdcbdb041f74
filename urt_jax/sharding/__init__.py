"""Which device holds what: meshes and the rules that place arrays on them."""
