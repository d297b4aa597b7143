"""Where models are kept: paths, records, locks."""
