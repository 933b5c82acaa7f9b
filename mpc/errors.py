"""The errors of the toolkit.

Every class here holds by contract no data: messages speak of parties, steps, shapes, counts and
public bounds. That is why their text, unlike the text of any other exception, may be told to peers
and written to logs.
"""


class SottovoceError(Exception):
    """Base of all errors whose text is free of data."""


class RangeError(SottovoceError, ValueError):
    """A public bound says that a result could leave the field's room; nothing was sent."""


class DataError(SottovoceError, ValueError):
    """Our own input cannot be shared as it is: out of bounds, NaN, infinite, wrong shape."""


class AgreementError(SottovoceError, ValueError):
    """The parties do not agree on something public: a shape, a bound, a protocol."""


class PeerError(SottovoceError, RuntimeError):
    """A peer was late, went away, stopped, or sent something that it must not send.

    Attributes
    ----------
    rank : int
        The peer at fault.
    step : str
        Where in the computation we were.
    """

    def __init__(self, message: str, *, rank: int, step: str) -> None:
        super().__init__(message)
        self.rank = rank
        self.step = step

