"""Runs a script and ends its output with a checksum of all parameters it ends with.

python tests/pinned/run.py SCRIPT [flags of SCRIPT]
"""

import atexit
import hashlib
import runpy
import sys

import pathnet

grids, build = [], pathnet.PathNet.__init__


def build_and_remember(grid, *arguments, **others):
    build(grid, *arguments, **others)
    grids.append(grid)


def print_checksum():
    checksum = hashlib.sha256()
    for grid in grids:
        for name, value in sorted(grid.parameters().items()):
            checksum.update(name.encode() + value.tobytes())
    print(f"Parameters: {checksum.hexdigest()}", flush=True)


pathnet.PathNet.__init__ = build_and_remember
atexit.register(print_checksum)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
