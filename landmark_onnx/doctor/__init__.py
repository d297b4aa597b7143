"""Whether models can run on this machine, and what is wrong if they cannot."""
