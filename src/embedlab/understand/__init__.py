"""What vectors tell about their texts and models, one file or folder per method."""
