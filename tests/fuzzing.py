"""Damaged files for the tests of readers: whatever a file holds, they refuse or read it.

    python tests/fuzzing.py 10000    # so many cases for each reader

runs those tests alone; the whole suite has a few cases of each.
"""

import copy
import os
import struct
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from common import checkpoint, commandline  # noqa: E402, which may lie next to no installed package

FUZZ_CASES = int(os.environ.get("PATHNET_FUZZ_CASES", "150"))  # that each reader meets


def damaged(content, rng):
    """Damages a file's content at random in one to three places, most often near its start.

    Args:
      content: bytes.
      rng: numpy Generator.

    Returns:
      The damaged bytes.
    """
    content = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        reach = min(len(content), int(rng.choice([256, len(content) + 1])))
        start = int(rng.integers(0, reach + 1))
        length = int(rng.integers(1, 17))
        match rng.integers(0, 7):
            case 0:
                content[start : start + 1] = bytes([1 << rng.integers(0, 8)])
            case 1:
                content[start : start + length] = rng.bytes(length)
            case 2:
                content[start : start + 4] = rng.choice([b"\0", b"\x7f", b"\xff"]) * 4
            case 3:
                content[start : start + 4] = struct.pack("<I", rng.integers(0, 70))
            case 4:
                del content[start : start + length]
            case 5:
                content[start:start] = content[: 64 * length]
            case 6:
                del content[start:]
    return bytes(content)


# What no field holds that a program of this project writes, or only few.
NONSENSE = (
    None,
    True,
    0,
    -5,
    1.5,
    10**30,
    10**400,
    float("nan"),
    float("inf"),
    "",
    "text",
    "\x1b[31mred",
    "\ud800",
    [],
    [[]],
    [float("nan")],
    {},
    {"a": None},
)


def nonsensical(facts, rng):
    """Changes JSON at random in one or two places.

    Args:
      facts: an object. rng: numpy Generator.

    Returns:
      A copy, with values replaced, removed or there twice.
    """
    facts = copy.deepcopy(facts)
    for _ in range(rng.integers(1, 3)):
        places = list(_places(facts))
        if not places:
            break
        holder, key = places[rng.integers(len(places))]
        match rng.integers(0, 6):
            case 0:
                del holder[key]
            case 1 if isinstance(holder, list):
                holder.insert(key, copy.deepcopy(holder[key]))
            case 2:
                other, another = places[rng.integers(len(places))]
                holder[key] = copy.deepcopy(other[another])
            case _:
                holder[key] = copy.deepcopy(NONSENSE[rng.integers(len(NONSENSE))])
    return facts


def _places(value):
    """Yields (holder, key) of every value inside."""
    if isinstance(value, dict):
        keys = list(value)
    elif isinstance(value, list):
        keys = range(len(value))
    else:
        return
    for key in keys:
        yield value, key
        yield from _places(value[key])


def nonsensical_arrays(arrays, rng):
    """Changes one array of a checkpoint at random; returns a copy of the dict."""
    arrays = dict(arrays)
    name = list(arrays)[rng.integers(len(arrays))]
    array = arrays[name]
    kind = ("remove", "flatten", "empty", "transpose", "double", "number", "type")
    match kind[rng.integers(len(kind))]:
        case "remove":
            del arrays[name]
        case "flatten":
            arrays[name] = array.ravel()
        case "empty":
            arrays[name] = array[:0]
        case "transpose":
            arrays[name] = array.T
        case "double":
            arrays[name] = np.concatenate([array, array])
        case "number":
            numbers = array.astype(float)
            value = rng.choice([np.nan, np.inf, -1, 0.5, 2, 1e300])
            numbers.flat[rng.integers(array.size)] = value
            keeps_type = np.isfinite(value) and abs(value) < 1e9
            arrays[name] = numbers.astype(array.dtype) if keeps_type else numbers
        case "type":
            types = ("U3", "S2", "V4", "O", "M8[s]", "?", "u1", "c16", "f2", "f8", "i8")
            arrays[name] = np.zeros(array.shape, types[rng.integers(len(types))])
    return arrays


def reseal(folder):
    """Gives a checkpoint the checksums of its files, as somebody would on purpose."""
    sums = [f"{checkpoint._sha256(folder / n)}  {n}\n" for n in checkpoint.FILES]
    (folder / "SHA256SUMS").write_text("".join(sums))


def assert_is_one_line(error, file):
    """An error names the file that is wrong, in a line that is safe on a terminal."""
    line = commandline.printable(str(error))
    assert str(file) in line
    assert "\n" not in line
    assert len(line) < 1_000


if __name__ == "__main__":
    os.environ["PATHNET_FUZZ_CASES"] = sys.argv[1]
    os.chdir(ROOT)
    sys.exit(pytest.main(["-m", "", "-k", "damaged or nonsensical", "tests"]))
