"""Survival: Kaplan-Meier curves, log-rank tests, Cox regression."""
