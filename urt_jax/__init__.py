"""urt_jax: a reasoning judge of images and videos, and the whole recipe that trains it, in JAX."""
