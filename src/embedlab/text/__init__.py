"""Making, adapting and repairing encoders of texts, one file or folder per method."""
