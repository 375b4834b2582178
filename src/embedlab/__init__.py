"""Make, adapt, compress, search, evaluate and understand embeddings."""

__version__ = "0.1.0"
