"""``examples/three_hospitals/walkthrough.py``, whose commands run in this process: each would load all anew.

Nodes and relay are processes all the same. What is shown, and what is said in the end, is as it is without this.
"""

from __future__ import annotations

import contextlib
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from parties.cli import app

WALKTHROUGH = Path(__file__).parents[2] / "examples" / "three_hospitals" / "walkthrough.py"


def main() -> None:
    """Be the example."""
    start = subprocess.run

    def run(words: list[str], *, cwd: Path, env: dict[str, str], **more: Any) -> subprocess.CompletedProcess[str]:
        if words[1:3] != ["-c", "from parties.cli import main; main()"]:
            return start(words, cwd=cwd, env=env, **more)
        with contextlib.chdir(cwd):
            done = CliRunner().invoke(app, words[3:], env=env)
        told = done.output if done.exception is None else f"{done.output}{done.exception!r}"
        return subprocess.CompletedProcess(words, done.exit_code, told)

    subprocess.run = run  # type: ignore[assignment]
    sys.argv[0] = str(WALKTHROUGH)
    sys.path.insert(0, str(WALKTHROUGH.parent))
    runpy.run_path(str(WALKTHROUGH), run_name="__main__")


if __name__ == "__main__":
    main()
