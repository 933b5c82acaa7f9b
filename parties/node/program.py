"""A study's own program: loaded from the text that everybody approved, and what it gives back made plain.

Its errors tell type and line and never a text, which could quote data. What the process around it can
still do is said in :mod:`parties.node.enter`.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import math
import re
import sys
from collections.abc import Awaitable, Callable, Mapping
from types import ModuleType
from typing import Any

import numpy as np

from mpc.errors import SottovoceError

_CLASS_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,79}")
_DEEPEST = 20

RunProgram = Callable[[Any, Any], Awaitable[Any]]


class ProgramError(SottovoceError, RuntimeError):
    """The study's program failed; says with what and at which line.

    Attributes
    ----------
    error_type : str
        Name of the class of what it raised.
    """

    def __init__(self, message: str, *, error_type: str) -> None:
        super().__init__(message)
        self.error_type = error_type


def load_program(text: str, name: str) -> RunProgram:
    """Run a program's text and take ``async def study(party, table)`` from it.

    Parameters
    ----------
    text : str
        Whose hash was checked before.
    name : str
        Of its file, for messages.

    Raises
    ------
    ProgramError
        If it does not load or defines no such function.
    """
    module = ModuleType("study")
    sys.modules[module.__name__] = module  # where dataclasses look for the names in their annotations
    try:
        exec(compile(text, name, "exec", dont_inherit=True), vars(module))  # noqa: S102 - which is what was agreed
    except BaseException as error:  # noqa: BLE001 - a program may raise whatever it likes
        raise _failure(error, name, "does not load") from None
    study = vars(module).get("study")
    if not inspect.iscoroutinefunction(study) or len(inspect.signature(study).parameters) != 2:
        raise ProgramError(
            f"{name} defines no study: it takes 'async def study(party, table):'", error_type="ProgramError"
        )
    run: RunProgram = study
    return run


async def run_program(run: RunProgram, name: str, party: Any, table: Any) -> dict[str, Any]:
    """Run a program and make its result plain.

    Returns
    -------
    dict
        ``{"value": ..., "summary": text}``: what JSON knows, and a text for people if the result has one.

    Raises
    ------
    ProgramError
        If it fails, or gives back what cannot be told.
    SottovoceError
        As it is, if that is what failed: such errors hold no data. One that the program itself raised is a
        ProgramError like any other, since its text is the program's.
    """
    try:
        value = await run(party, table)
        summary = getattr(value, "summary", None)
        text = str(summary()) if callable(summary) else ""
        return {"value": plain(value), "summary": text}
    except BaseException as error:
        if _is_ours(error, name):
            raise
        raise _failure(error, name, "failed") from None


def plain(value: Any, depth: int = 0) -> Any:
    """Turn a result into what JSON knows.

    Raises
    ------
    ProgramError
        Naming the type that cannot be turned, never a value.
    """
    if depth > _DEEPEST:
        raise _untold("is nested too deeply")
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        if not math.isfinite(value):
            raise _untold("holds a number that is not finite: give back None, or a text, in its place")
        return float(value)
    if isinstance(value, np.bool_):
        return bool(value)
    if isinstance(value, np.ndarray):
        return plain(value.tolist(), depth + 1)
    if isinstance(value, Mapping):
        return {str(key): plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, depth + 1) for item in value]
    told = getattr(value, "to_dict", None)
    if callable(told):
        return plain(told(), depth + 1)
    raise _untold(f"holds a {_name_of(type(value))}: give back numbers, text, lists, dicts or numpy arrays of them")


def place_of(error: BaseException) -> str:
    """Say where an error arose: file and line."""
    trace = error.__traceback__
    place = "an unknown place"
    while trace is not None:
        place = f"{trace.tb_frame.f_code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place


def _untold(why: str) -> ProgramError:
    return ProgramError(f"the program's result {why}", error_type="ReturnTypeError")


def _is_ours(error: BaseException, name: str) -> bool:
    """Whether it is about us and not about the program: we are stopped, or an error was raised by code of ours."""
    if isinstance(error, asyncio.CancelledError | GeneratorExit):
        return True
    if isinstance(error, BaseExceptionGroup):
        return all(_is_ours(part, name) for part in error.exceptions)
    return isinstance(error, SottovoceError) and not _raised_in(error, name)


def _raised_in(error: BaseException, name: str) -> bool:
    """Whether the program's own text raised it; an error without a trace was never raised by ours."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is None or trace.tb_frame.f_code.co_filename == name


def _failure(error: BaseException, name: str, how: str) -> ProgramError:
    inner = error
    while isinstance(inner, BaseExceptionGroup):
        inner = inner.exceptions[0]
    line = inner.lineno if isinstance(inner, SyntaxError) else _line_in(inner, name) or _line_in(error, name)
    where = f" at line {line}" if line else ""
    kind = _name_of(type(inner))
    return ProgramError(f"{name} {how}{where}: {kind}", error_type=kind)


def _line_in(error: BaseException, name: str) -> int | None:
    line = None
    trace = error.__traceback__
    with contextlib.suppress(AttributeError):
        while trace is not None:
            if trace.tb_frame.f_code.co_filename == name:
                line = trace.tb_lineno
            trace = trace.tb_next
    return line


def _name_of(kind: type) -> str:
    # A program names its classes as it likes; what is told is a name and nothing that it computed.
    name = kind.__name__
    return name if _CLASS_NAME.fullmatch(name) else "an exception"
