"""The same seeds in each run, so that two runs can be compared bit by bit: for tests, and for nothing else.

Python loads this when it starts, where a test has put this folder on the path. It changes the processes that compute,
no others: what they draw as seeds follows from whose they are and from how many they drew before. A node's ledger stops
what uses a seed twice, so the test takes the ledger away between two runs.
"""

import hashlib
import itertools
import os
import secrets
import sys

SEED_BYTES = 32

if any(word.endswith("enter.py") for word in sys.orig_argv):
    member = os.getcwd().split("/state/")[0].rpartition("/")[2]
    count = itertools.count()
    drawn = secrets.token_bytes

    def token_bytes(nbytes: int | None = None) -> bytes:
        """Return seeds that are no secret, and other random bytes as ever."""
        if nbytes != SEED_BYTES:
            return drawn(nbytes)
        return hashlib.sha256(f"{member} {next(count)}".encode()).digest()

    secrets.token_bytes = token_bytes
