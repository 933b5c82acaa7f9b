"""All trials at full length: ``scripts/soak`` runs this."""

from __future__ import annotations

import argparse
import os
import random
import secrets
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.consortium.trials import cuts, kills, running, soak, through_proxies


def say(text: str) -> None:
    """Write a line, at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the trials; 0 if all is as it should be."""
    parser = argparse.ArgumentParser(prog="scripts/soak", description="Kill, cut and soak a consortium of real nodes.")
    parser.add_argument("--kills", type=int, default=20, help="kill -9 of a random node (default: %(default)s)")
    parser.add_argument("--cuts", type=int, default=20, help="cuts of all connections for 5 s (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=30.0, help="studies one after another (default: %(default)s)")
    parser.add_argument("--seed", type=int, help="repeat a run")
    given = parser.parse_args(arguments)
    seed = secrets.randbits(32) if given.seed is None else given.seed
    say(f"seed: {seed} (repeat with --seed {seed}), {os.cpu_count()} cores")
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="sottovoce-soak-") as name:
        folder = Path(name)
        if given.kills:
            with running(folder / "kills", seed) as (consortium, _):
                kills(consortium, rng, given.kills, say=say)
        if given.cuts:
            with through_proxies(folder / "cuts", seed) as (consortium, _, proxies):
                cuts(consortium, proxies, rng, given.cuts, say=say)
        if given.minutes:
            with running(folder / "soak", seed) as (consortium, _):
                samples = soak(consortium, 60 * given.minutes, say=say)
                say(f"{len(samples)} studies; first {samples[0]}; last {samples[-1]}")
    say("all is as it should be")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
