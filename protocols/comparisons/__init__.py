"""Comparing: t-tests, analysis of variance, rank tests, quantiles, correlations."""
