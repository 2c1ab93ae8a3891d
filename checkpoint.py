"""Checkpoints: named arrays and a few facts in one file, written whole or not at all.

A checkpoint is a .npz file (a zip archive of .npy files, each with a checksum). Reading
one executes nothing, and allocates no more than the file holds.
"""

import glob
import io
import json
import os
import re
import sys
import zipfile

import numpy as np

from commandline import UserError

FACTS = "facts.json"
KEPT = 2  # the newest, and the one before in case that is damaged


def write(filename, arrays, facts):
    """Writes arrays {name: array} and facts (JSON) to a file, atomically.

    Raises:
      OSError: it could not be written; an earlier file of that name is as it was.
    """
    partial = f"{filename}.partial-{os.getpid()}"
    try:
        with open(partial, "wb") as file:
            with zipfile.ZipFile(file, "w") as archive:
                archive.writestr(FACTS, json.dumps(facts))
                for name, array in arrays.items():
                    member = io.BytesIO()
                    np.save(member, array, allow_pickle=False)
                    archive.writestr(f"{name}.npy", member.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, filename)
    except OSError as error:
        if os.path.exists(partial):
            os.remove(partial)
        raise OSError(error.errno, error.strerror, filename) from error


def read(filename):
    """Reads what `write` wrote: (arrays, facts).

    Raises:
      UserError: the file is damaged or something else.
      OSError: it cannot be read.
    """
    try:
        with zipfile.ZipFile(filename) as archive:
            facts = json.loads(archive.read(FACTS))
            arrays = {
                name.removesuffix(".npy"): _array(archive.read(name))
                for name in archive.namelist()
                if name != FACTS
            }
    except OSError:
        raise
    except Exception as error:
        # zipfile and numpy raise all kinds of errors for bytes that make no sense.
        raise UserError(
            f"{filename}: damaged, or no checkpoint of this project ({error})"
        ) from error
    return arrays, facts


def _array(data):
    """The array of the bytes of a .npy file; ValueError if they are not one."""
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    if version != (1, 0):
        raise ValueError(f"array format {version}")
    shape, transposed, dtype = np.lib.format.read_array_header_1_0(stream)
    values = np.frombuffer(data, dtype, offset=stream.tell())
    return values.reshape(shape[::-1]).T if transposed else values.reshape(shape)


def save(folder, number, arrays, facts):
    """Writes checkpoint `number` to a folder and removes those before the last.

    Raises:
      OSError: it could not be written; earlier ones are as they were.
    """
    os.makedirs(folder, exist_ok=True)
    write(os.path.join(folder, f"checkpoint-{number:09d}.npz"), arrays, facts)
    for filename in numbered(folder)[:-KEPT]:
        os.remove(filename)


def numbered(folder):
    """Filenames of the checkpoints in a folder, oldest first."""
    names = glob.glob(os.path.join(glob.escape(folder), "checkpoint-*.npz"))
    return sorted(name for name in names if re.search(r"checkpoint-\d{9}\.npz$", name))


def load(folder):
    """The newest readable checkpoint of a folder: (arrays, facts), or None without any.

    A damaged one is passed over, with a line on stderr.

    Raises:
      UserError: there are some, and all are damaged.
    """
    error = None
    for filename in reversed(numbered(folder)):
        try:
            return read(filename)
        except UserError as damaged:
            error = damaged
            print(f"{damaged}; trying the one before it", file=sys.stderr)
    if error:
        raise error
    return None
