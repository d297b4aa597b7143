"""Which landmark an image shows: votes of neighbours and classifiers, and a detector's word on what is no landmark."""
