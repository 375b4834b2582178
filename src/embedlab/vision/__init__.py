"""Methods on image encoders and trackers, one file per method."""
