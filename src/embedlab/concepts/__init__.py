"""Concepts in text-to-image pipelines: learned, disentangled or erased, one file per method."""
