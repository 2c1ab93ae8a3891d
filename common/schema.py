"""What the fields of a file must be: checks of types, ranges and shapes.

    TASK = schema.record({"name": schema.text, "generations": schema.whole(1)})
    TASK(task, "tasks[0]")  # ValueError: tasks[0].generations is not a whole number ...

A check is called with a value and with the place that the value has in its file. It
raises ValueError, with the place and a reason, unless the value is what it must be, and
larger checks are made of smaller ones. Files with fitting checksums can hold nonsense,
too, so whatever a reader hands on has passed a check.
"""

import math
import sys
from collections.abc import Callable, Mapping

import numpy as np

from common.require import require

Check = Callable[[object, str], None]

# The largest integer up to which a float holds every one, as all that is counted.
LARGEST_WHOLE = 2**53
_LARGEST = sys.float_info.max


# ---- Single values ----


def text(value: object, place: str) -> None:
    """Text of one line without control characters, which is safe on any terminal."""
    is_text = isinstance(value, str) and value.isprintable()
    require(is_text, f"{place} is not printable text")


def boolean(value: object, place: str) -> None:
    """true or false."""
    require(type(value) is bool, f"{place} is not true or false")


def whole(low: int = -LARGEST_WHOLE, high: int = LARGEST_WHOLE) -> Check:
    """An integer from `low` to `high`; no 1.0, and no true."""

    def check(value: object, place: str) -> None:
        is_whole = type(value) is int and low <= value <= high
        require(is_whole, f"{place} is not a whole number{_range(low, high)}")

    return check


def number(low: float = -_LARGEST, high: float = _LARGEST) -> Check:
    """An integer or float from `low` to `high`: finite, as both bounds are."""

    def check(value: object, place: str) -> None:
        # A comparison with NaN is false, and one with a huge integer is exact.
        is_number = type(value) in (int, float) and low <= value <= high
        require(is_number, f"{place} is not a number{_range(low, high)}")

    return check


def nullable(check: Check) -> Check:
    """null, or what passes the check."""

    def check_value(value: object, place: str) -> None:
        if value is not None:
            check(value, place)

    return check_value


def _range(low: float, high: float) -> str:
    """A range in words; nothing, where every number that can be handled is in it."""
    has_low, has_high = low > -LARGEST_WHOLE, high < LARGEST_WHOLE
    if has_low and has_high:
        return f" from {low} to {high}"
    return f" from {low} on" if has_low else ""


# ---- Lists and objects ----


def list_of(check: Check, length: int | None = None) -> Check:
    """A list of what passes the check, of a length if that is given."""

    def check_list(value: object, place: str) -> None:
        require(isinstance(value, list), f"{place} is not a list")
        fits = length is None or len(value) == length
        require(fits, f"{place} is not a list of {length}")
        for number_, item in enumerate(value):
            check(item, f"{place}[{number_}]")

    return check_list


def record(
    required: Mapping[str, Check], optional: Mapping[str, Check] | None = None
) -> Check:
    """An object with fields; fields that are not named may hold anything.

    Args:
      required: the checks of the fields that must be there, by name.
      optional: those of fields that may be missing.
    """
    checks = {**(optional or {}), **required}

    def check_record(value: object, place: str) -> None:
        require(isinstance(value, dict), f"{place or 'it'} is not an object")
        for name, check in checks.items():
            if name in value:
                check(value[name], f"{place}.{name}" if place else name)
            else:
                is_missing = name in required
                require(not is_missing, f'{place or "it"} has no "{name}"')

    return check_record


def by_name(check: Check) -> Check:
    """An object whose every field has a printable name and passes the check."""

    def check_fields(value: object, place: str) -> None:
        require(isinstance(value, dict), f"{place} is not an object")
        for name, item in value.items():
            text(name, f"a name in {place}")
            check(item, f"{place}.{name}")

    return check_fields


def columns(checks: Mapping[str, Check]) -> Check:
    """An object with a list of each name, all of one length; checks are of their items."""
    check_lists = record({name: list_of(check) for name, check in checks.items()})

    def check_columns(value: object, place: str) -> None:
        check_lists(value, place)
        lengths = {len(value[name]) for name in checks}
        require(len(lengths) == 1, f"{place} has lists of several lengths")

    return check_columns


def flag_values(value: object, place: str) -> None:
    """An object of flags: values as the command line makes them, and lists of those."""
    require(isinstance(value, dict), f"{place} is not an object")
    plain = (bool, int, float, str, type(None))
    for flag in value.values():
        parts = flag if isinstance(flag, list) else [flag]
        are_plain = all(isinstance(part, plain) for part in parts)
        require(are_plain, f"{place} holds something that is no value of a flag")


# ---- Arrays ----


def array(
    kinds: str,
    shape: tuple[int | None, ...] | None = None,
    low: float = -math.inf,
    high: float = math.inf,
) -> Check:
    """A numpy array of finite numbers.

    Args:
      kinds: which of numpy's kinds of numbers it may hold: "i" integers, "f" floats, ...
      shape: its shape, with None where a size is free; None for any shape.
      low, high: bounds of every number.
    """

    def check(value: object, place: str) -> None:
        is_array = isinstance(value, np.ndarray) and value.dtype.kind in kinds
        require(is_array, f"{place} is not an array of the right kind of numbers")
        if shape is not None:
            fits = len(value.shape) == len(shape) and all(
                size in (None, actual) for size, actual in zip(shape, value.shape)
            )
            sizes = ", ".join("n" if size is None else str(size) for size in shape)
            require(fits, f"{place} is not of shape [{sizes}]")
        # One pass and no copies: parameters are large. NaN makes both sides false.
        if value.size:
            least, most = value.min(), value.max()
            are_finite = bool(np.isfinite(least) and np.isfinite(most))
            require(are_finite, f"{place} holds a number that is not finite")
            fits = low <= least and most <= high
            require(fits, f"{place} holds a number that is not from {low} to {high}")

    return check


def binary(shape: tuple[int | None, ...], *others: float) -> Check:
    """A numpy array of zeros and ones, of a shape as for `array`.

    `others` are further numbers that it may hold, in [0, 1], rounded to float32.
    """
    check_numbers = array("biuf", shape, 0, 1)
    allowed = sorted({0, 1, *others})
    names = ", ".join(f"{number:g}" for number in allowed[:-1])

    def check(value: object, place: str) -> None:
        check_numbers(value, place)
        are_allowed = bool(np.isin(value, np.float32(allowed)).all())
        require(are_allowed, f"{place} holds a number that is not {names} or 1")

    return check
