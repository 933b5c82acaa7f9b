"""Pools: the parties' variables, checked and brought together, whether they hold rows or columns."""
