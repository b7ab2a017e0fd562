"""Where classifiers come from: sources, weights, identity."""
