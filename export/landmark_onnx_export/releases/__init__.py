"""Released files: tars and folders, read in place."""
