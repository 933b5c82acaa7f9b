"""pandas frames, series and indexes taken apart into what the codec knows, and put together again."""

from __future__ import annotations

from typing import Any

import numpy as np

from parties.errors import ReturnTypeError


def take_apart(value: Any) -> tuple[Any, ...] | None:
    """Return plain parts of a pandas object, or None if it is of a kind that is not supported."""
    import pandas as pd

    if isinstance(value, pd.DataFrame):
        columns = [_array_parts(value.iloc[:, place].array) for place in range(value.shape[1])]
        return ("frame", take_apart(value.index), take_apart(value.columns), columns)
    if isinstance(value, pd.Series):
        return ("series", take_apart(value.index), value.name, _array_parts(value.array))
    if isinstance(value, pd.RangeIndex):
        return ("range", value.start, value.stop, value.step, value.name)
    if isinstance(value, pd.MultiIndex):
        levels = [_array_parts(value.get_level_values(place).array) for place in range(value.nlevels)]
        return ("levels", levels, list(value.names))
    if isinstance(value, pd.Index):
        return ("index", value.name, _array_parts(value.array))
    return None


def put_together(parts: Any) -> Any:
    """Undo :func:`take_apart`; ``ValueError`` or ``TypeError`` if these are no such parts."""
    import pandas as pd

    match parts:
        case ("frame", index, names, columns):
            made = [_array(column) for column in columns]
            frame = pd.DataFrame(dict(enumerate(made)), index=put_together(index))
            frame.columns = put_together(names)
            return frame
        case ("series", index, name, values):
            return pd.Series(_array(values), index=put_together(index), name=name, copy=True)
        case ("range", start, stop, step, name):
            return pd.RangeIndex(start, stop, step, name=name)
        case ("levels", levels, names):
            return pd.MultiIndex.from_arrays([_array(level) for level in levels], names=names)
        case ("index", name, values):
            return pd.Index(_array(values), name=name)
        case _:
            raise ValueError("no parts of a pandas object")


def _array_parts(array: Any) -> tuple[Any, ...]:
    import pandas as pd

    dtype = array.dtype
    if isinstance(dtype, np.dtype):
        return ("numpy", array.to_numpy())
    if isinstance(dtype, pd.CategoricalDtype):
        categories = _array_parts(dtype.categories.array)
        return ("categories", np.asarray(array.codes), categories, bool(dtype.ordered))
    if isinstance(dtype, pd.DatetimeTZDtype):
        return ("zoned", array.tz_convert("UTC").tz_localize(None).to_numpy(), str(dtype.tz))
    if isinstance(dtype, pd.PeriodDtype | pd.IntervalDtype | pd.SparseDtype):
        raise ReturnTypeError(f"a pandas array of dtype {dtype} cannot be given back from a party's process")
    values = [None if missing else item for item, missing in zip(array.tolist(), pd.isna(array), strict=True)]
    return ("by name", values, str(dtype))


def _array(parts: Any) -> Any:
    import pandas as pd

    match parts:
        case ("numpy", np.ndarray() as values):
            return values
        case ("categories", codes, categories, ordered):
            return pd.Categorical.from_codes(codes, pd.Index(_array(categories)), ordered=ordered)
        case ("zoned", values, zone):
            return pd.DatetimeIndex(values).tz_localize("UTC").tz_convert(zone).array
        case ("by name", values, name):
            return pd.array(values, dtype=name)
        case _:
            raise ValueError("no parts of a pandas array")
