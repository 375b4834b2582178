"""Embeddings of nodes, one file per method."""
