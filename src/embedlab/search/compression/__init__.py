"""Collections in fewer bytes: codes beside or instead of vectors, and another model for queries over the same index."""
