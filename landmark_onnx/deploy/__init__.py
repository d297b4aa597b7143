"""Models for other machines: bundles and Triton repositories."""
