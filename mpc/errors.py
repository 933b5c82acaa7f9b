"""The errors of the toolkit.

No class here ever holds a value of the data: messages speak of parties, steps, shapes, counts and
public bounds. That is why their text, unlike the text of any other exception, may be written to logs.
What peers are told is :func:`for_peers`.
"""


class SottovoceError(Exception):
    """Base of all errors whose text is free of data."""


class RangeError(SottovoceError, ValueError):
    """A public bound says that a result could leave the field's room; nothing was sent."""


class DataError(SottovoceError, ValueError):
    """Our own input cannot be shared as it is: out of bounds, NaN, infinite, wrong shape.

    The text counts entries by column. It is for the data's owner; peers learn the type alone.
    """


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


class SecurityError(SottovoceError, ValueError):
    """What was asked for does not exist under the agreed security model; nothing was sent."""


class CheatingError(SottovoceError, RuntimeError):
    """Some party does not follow the protocol: what was opened, or announced, does not hold.

    Which party it was is not known. Nothing that was computed is to be used.
    """


def for_peers(error: BaseException) -> str:
    """Return what peers may read of an error beside its type: nothing, unless it is free of data."""
    if isinstance(error, DataError) or not isinstance(error, SottovoceError):
        return ""
    return str(error)
