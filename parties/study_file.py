"""A study in a Python file: ``async def study(party, data)``, and ``inputs``, one for each organisation."""

from __future__ import annotations

import importlib.util
import inspect
import sys
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from mpc.errors import SottovoceError


class StudyError(SottovoceError):
    """A file is not a study."""


@dataclass(frozen=True, slots=True)
class Study:
    """What a file says is to be computed, and the data to try it on."""

    program: Callable[[Any, Any], Awaitable[Any]]
    inputs: list[Any]


def load_study(path: Path) -> Study:
    """Run a Python file and take the study from it.

    Parameters
    ----------
    path : Path
        The file defines ``async def study(party, data)``, and ``inputs``: a list with the data of each
        organisation, or a function without arguments that returns one.

    Raises
    ------
    StudyError
        The file does not define these, or fails; says where.
    """
    module = _execute(path)
    program = getattr(module, "study", None)
    if not inspect.iscoroutinefunction(program):
        raise StudyError(f"{path} defines no study: it takes 'async def study(party, data):'")
    if len(inspect.signature(program).parameters) != 2:
        raise StudyError(f"{path}: study takes two arguments, (party, data)")
    inputs = getattr(module, "inputs", None)
    if callable(inputs):
        try:
            inputs = inputs()
        except Exception as error:
            raise StudyError(f"inputs() failed: {_where(error, path)}") from error
    if not isinstance(inputs, list | tuple) or len(inputs) < 2:
        raise StudyError(
            f"{path}: inputs is a list with the data of each organisation (2 or more), or a function of one"
        )
    return Study(program, list(inputs))


def _execute(path: Path) -> ModuleType:
    name = path.stem if path.stem.isidentifier() and path.stem not in sys.modules else "_study"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise StudyError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    # As for a program that is run: it finds its neighbours, and its classes are found by name.
    sys.path.insert(0, str(path.resolve().parent))
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise StudyError(f"{path} does not load: {_where(error, path)}") from error
    return module


def _where(error: Exception, path: Path) -> str:
    """Say what an error of the file is and at which of its lines; the file is its owner's own."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.lineno and Path(frame.filename) == path]
    if isinstance(error, SyntaxError) and error.lineno:
        lines = [error.lineno]
    at = f"line {lines[-1]}: " if lines else ""
    said = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{at}{type(error).__name__}: {said}" if said else f"{at}{type(error).__name__}"
