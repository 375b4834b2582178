"""Embedding tables for ids: compressed, shared or searched for, one file per method."""
