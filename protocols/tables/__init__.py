"""Describing: table 1, proportions, histograms, contingency tables."""
