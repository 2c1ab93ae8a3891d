"""Packages that are missing: one line, not a traceback from the middle of the imports.

The scripts import this, by way of `common.commandline`, before any package.
"""

import importlib.util
import os
import sys

from common import interrupts

# Modules of the packages in requirements.txt that the scripts use, as `import` names them.
_MODULES = (
    "absl",
    "ale_py",
    "gymnasium",
    "matplotlib",
    "numpy",
    "PIL",
    "pooch",
    "requests",
    "rich",
    "scipy",
    "tensorboard",
    "tensorflow",
    "tqdm",
)


def missing() -> list[str]:
    """Names of modules that this Python cannot import, since nobody has installed them."""
    return [name for name in _MODULES if importlib.util.find_spec(name) is None]


def _exit_if_any_is_missing() -> None:
    if lacking := missing():
        script = os.path.basename(sys.argv[0])
        print(
            f"{script}: {sys.executable} has no module {', '.join(lacking)}: run make "
            f".venv/ready, then .venv/bin/python {script}",
            file=sys.stderr,
        )
        sys.exit(2)


if interrupts.is_script():
    _exit_if_any_is_missing()
