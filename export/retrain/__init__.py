"""The whole chain from a recipe."""
