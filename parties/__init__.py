"""Nodes, their network, and simulations of them on one machine."""

from parties.errors import PartyError
from parties.reports import PartyCosts, Results, RunCosts
from parties.simulate import simulate

__all__ = ["PartyCosts", "PartyError", "Results", "RunCosts", "simulate"]
