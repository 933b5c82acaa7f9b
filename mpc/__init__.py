"""Secure multi-party computation on additive shares over prime fields.

``mpc`` knows fields, shares, openings, products, truncation and preprocessing. It knows no network
protocol and no clock: a party is handed its transport.
"""

from mpc.arithmetic import mask, matmul, multiply, products, truncate, truncate_all
from mpc.comparison import is_negative, less_than
from mpc.costs import Costs, Opening, StepCost
from mpc.errors import AgreementError, DataError, PeerError, RangeError, SottovoceError
from mpc.field import F61, F127, GF, Field
from mpc.inputs import agree
from mpc.opening import open_
from mpc.party import Party
from mpc.prepare import PreparationError, prepare
from mpc.session import join, serve_dealer
from mpc.share import Share, concatenate, stack
from mpc.sigmoid import sigmoid
from mpc.transport import Transport

__all__ = [
    "F61",
    "F127",
    "GF",
    "AgreementError",
    "Costs",
    "DataError",
    "Field",
    "Opening",
    "Party",
    "PeerError",
    "PreparationError",
    "RangeError",
    "Share",
    "SottovoceError",
    "StepCost",
    "Transport",
    "agree",
    "concatenate",
    "is_negative",
    "join",
    "less_than",
    "mask",
    "matmul",
    "multiply",
    "open_",
    "prepare",
    "products",
    "serve_dealer",
    "sigmoid",
    "stack",
    "truncate",
    "truncate_all",
]
