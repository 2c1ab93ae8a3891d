"""The folder of a run: one of its own, whatever else is there."""

import itertools
import os


def new(log_dir, name):
    """Makes a folder that did not exist before: log_dir/name, else name-2, name-3 ...

    Raises:
      OSError: it cannot be made; names the folder.
    """
    os.makedirs(log_dir, exist_ok=True)
    for number in itertools.count(1):
        folder = os.path.join(log_dir, name if number == 1 else f"{name}-{number}")
        try:
            os.mkdir(folder)
            return folder
        except FileExistsError:
            continue
