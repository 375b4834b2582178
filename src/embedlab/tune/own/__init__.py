"""Knobs of the search itself, one a file; a file here is a knob, and methods bring theirs in their own records."""
