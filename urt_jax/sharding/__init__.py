"""Placement of arrays on devices: meshes and the rules that shard arrays over them."""
