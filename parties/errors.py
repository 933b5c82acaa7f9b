"""Errors of running parties: a connection that cannot be set up, a party whose program failed."""

from __future__ import annotations

from mpc.errors import SottovoceError


class IdentityError(SottovoceError, ValueError):
    """A certificate or key is not what an identity of ours is made of."""


class ReturnTypeError(SottovoceError, TypeError):
    """A program returned something that cannot leave its process; names the type, not the value."""


class CodecError(SottovoceError, ValueError):
    """Bytes that should hold a value do not."""


class PartyError(SottovoceError, RuntimeError):
    """A party of a simulation failed; the message names it and the type of the error.

    It never carries the text of an error that is not ours, since such a text may quote data: a
    ``KeyError`` quotes a key, a ``ValueError`` of ``float()`` a cell of somebody's table. What is told
    is the type and where in the program it was raised.

    Attributes
    ----------
    rank : int
        The party whose program failed, or which died.
    error_type : str
        Name of the exception class; ``"ProcessDied"`` when the process ended without a word,
        ``"TimeoutError"`` when the run did not end in time.
    """

    def __init__(self, message: str, *, rank: int, error_type: str) -> None:
        super().__init__(message)
        self.rank = rank
        self.error_type = error_type
