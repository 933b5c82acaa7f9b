"""A relay that tampers: one message in so many is altered, repeated, lost or swapped with the next. Run as a program.

It takes what ``sottovoce relay`` takes, after a number: one in how many.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable

from parties.cli import app
from parties.relay.forward import End

Forward = Callable[[End, bytes | bytearray], None]


def tampering(honest: Forward, one_in: int) -> Forward:
    """Make a way to forward that does not always forward what came."""
    chance = random.Random(one_in)
    held: dict[End, bytes] = {}

    def forward(self: End, message: bytes | bytearray) -> None:
        if (late := held.pop(self, None)) is not None:
            honest(self, message)
            honest(self, late)
            return
        if chance.randrange(one_in):
            honest(self, message)
            return
        match chance.choice(["flip", "repeat", "lose", "swap"]):
            case "flip":
                altered = bytearray(message)
                altered[chance.randrange(len(altered))] ^= 1 << chance.randrange(8)
                honest(self, altered)
            case "repeat":
                honest(self, message)
                honest(self, bytes(message))
            case "swap":
                held[self] = bytes(message)

    return forward


if __name__ == "__main__":
    setattr(End, "_forward", tampering(End._forward, int(sys.argv.pop(1))))  # noqa: B010 - it is not ours to assign
    app(["relay", *sys.argv[1:]])
