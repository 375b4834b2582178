"""Trying methods on a collection and keeping what is significantly better."""
