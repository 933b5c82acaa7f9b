"""Secure multi-party computation on additive shares over prime fields.

``mpc`` knows fields, shares, openings, products, truncation, bits, sorting and preprocessing. It knows no network
protocol and no clock: a party is handed its transport.
"""

from mpc.arithmetic import mask, matmul, multiply, products, truncate, truncate_all
from mpc.comparison import is_negative, less_than
from mpc.costs import Costs, Opening, StepCost
from mpc.elementary import divide, exp, inverse_sqrt, log, reciprocal, sqrt
from mpc.errors import AgreementError, CheatingError, DataError, PeerError, RangeError, SecurityError, SottovoceError
from mpc.estimate import NETWORKS, CostEstimate, Network, estimate
from mpc.field import F61, F127, GF, Field
from mpc.inputs import agree
from mpc.linear import Solved, cholesky, inverse, solve
from mpc.logic import absolute, argmax, equal, from_bits, maximum, minimum, select, sign, to_bits
from mpc.made_up import MadeUp
from mpc.opening import open_
from mpc.party import Party
from mpc.prepare import PreparationError, prepare
from mpc.session import join, serve_dealer
from mpc.share import Share, concatenate, stack
from mpc.shuffling import shuffle
from mpc.sigmoid import sigmoid, softplus
from mpc.sorting import Order, argsort, run_bounds, sort
from mpc.transport import Transport

__all__ = [
    "F61",
    "F127",
    "GF",
    "NETWORKS",
    "AgreementError",
    "CheatingError",
    "CostEstimate",
    "Costs",
    "DataError",
    "Field",
    "MadeUp",
    "Network",
    "Opening",
    "Order",
    "Party",
    "PeerError",
    "PreparationError",
    "RangeError",
    "SecurityError",
    "Share",
    "Solved",
    "SottovoceError",
    "StepCost",
    "Transport",
    "absolute",
    "agree",
    "argmax",
    "argsort",
    "cholesky",
    "concatenate",
    "divide",
    "equal",
    "estimate",
    "exp",
    "from_bits",
    "inverse",
    "inverse_sqrt",
    "is_negative",
    "join",
    "less_than",
    "log",
    "mask",
    "matmul",
    "maximum",
    "minimum",
    "multiply",
    "open_",
    "prepare",
    "products",
    "reciprocal",
    "run_bounds",
    "select",
    "serve_dealer",
    "shuffle",
    "sigmoid",
    "sign",
    "softplus",
    "solve",
    "sort",
    "sqrt",
    "stack",
    "to_bits",
    "truncate",
    "truncate_all",
]
