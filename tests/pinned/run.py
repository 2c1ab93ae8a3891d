"""Runs a script and ends its output with a checksum of all parameters it ends with.

    python tests/pinned/run.py GENERATION SCRIPT [flags of SCRIPT]

Ctrl-C arrives before generation number GENERATION of the whole run, or never if it is 0.
"""

import atexit
import hashlib
import runpy
import sys

import pathnet

generation, sys.argv = int(sys.argv[1]), sys.argv[2:]
grids, drawn = [], []
build, draw = pathnet.PathNet.__init__, pathnet.draw_candidates


def build_and_remember(grid, *arguments, **others):
    build(grid, *arguments, **others)
    grids.append(grid)


def draw_or_stop(*arguments):
    drawn.append(True)
    if len(drawn) == generation:
        raise KeyboardInterrupt
    return draw(*arguments)


def print_checksum():
    checksum = hashlib.sha256()
    for grid in grids:
        for name, value in sorted(grid.parameters().items()):
            checksum.update(name.encode() + value.tobytes())
    print(f"Parameters: {checksum.hexdigest()}", flush=True)


pathnet.PathNet.__init__, pathnet.draw_candidates = build_and_remember, draw_or_stop
atexit.register(print_checksum)
runpy.run_path(sys.argv[0], run_name="__main__")
