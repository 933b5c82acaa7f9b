"""Prediction: ROC curves, calibration, Brier scores."""
