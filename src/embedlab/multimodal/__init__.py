"""Texts and images in one space, one file per method."""
