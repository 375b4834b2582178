"""Word vectors: trained, grounded, aligned and examined, one file per method."""
