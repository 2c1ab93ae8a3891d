"""Tests of common/tf1.py: what TensorFlow writes while it is imported."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent.parent

NOTES = """\
WARNING: All log messages before absl::InitializeLog() is called are written to STDERR
I0000 00:00:1730000000.000000    1 port.cc:153] oneDNN custom operations are on.
W0000 00:00:1730000000.000000    1 cpu_feature_guard.cc:227] TensorFlow binary
E0000 00:00:1730000000.000000    1 cuda_platform.cc:52] failed call to cuInit: INTERNAL
"""

FAKE_TENSORFLOW = """
import os, sys
class Anything:
    def __getattr__(self, name): return self
    def __call__(self, *args): return self
sys.modules[__name__] = Anything()
os.write(2, os.environ["FAKE_STDERR"].encode())
exec(os.environ.get("FAKE_CODE", ""))
"""


def run_python(code, **environment):
    cleared = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS",)}
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=cleared | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture
def import_tensorflow(tmp_path):
    """Imports TensorFlow in a new process: a fake one, which does what it is told."""
    package = tmp_path / "tensorflow" / "compat"
    package.mkdir(parents=True)
    (tmp_path / "tensorflow" / "__init__.py").touch()
    (package / "__init__.py").touch()
    (package / "v1.py").write_text(FAKE_TENSORFLOW)

    def run(stderr, code="", then="", **environment):
        return run_python(
            "from common import tf1\ntf1.load()\n" + then,
            PYTHONPATH=str(tmp_path),
            FAKE_STDERR=stderr,
            FAKE_CODE=code,
            **environment,
        )

    return run


def test_importing_is_quiet():
    """With the real TensorFlow: nothing at all."""
    done = run_python("from common import tf1; tf1.load()")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_only_start_up_notes_are_held_back(import_tensorflow):
    trouble = "libmetal.so: cannot open shared object file\nunfinished line"
    done = import_tensorflow(NOTES + trouble, then="import os; os.write(2, b' after')")
    assert done.returncode == 0
    assert done.stderr == trouble + " after"


def test_an_error_while_importing_is_told(import_tensorflow):
    done = import_tensorflow(
        NOTES + "Symbol not found\n", "raise ImportError('numpy is too new')"
    )
    assert done.returncode == 1
    assert done.stderr.startswith("Symbol not found\nTraceback")
    assert done.stderr.endswith("ImportError: numpy is too new\n")


def test_the_last_words_of_a_process_that_dies_importing_are_told(import_tensorflow):
    """As TensorFlow does on a processor that lacks an instruction it was built for."""
    fatal = "F0000 cpu_feature_guard.cc] was compiled to use AVX instructions\n"
    done = import_tensorflow(NOTES + fatal, "os.abort()")
    assert done.returncode < 0
    assert "AVX" in done.stderr


def test_xla_flags_of_the_user_win(import_tensorflow):
    """XLA takes the last of several values."""
    flag = "--xla_cpu_use_fusion_emitters=true"
    done = import_tensorflow(
        "", then="import os; print(os.environ['XLA_FLAGS'])", XLA_FLAGS=flag
    )
    found = re.findall(r"--xla_cpu_use_fusion_emitters=\w+", done.stdout)
    assert found == ["--xla_cpu_use_fusion_emitters=false", flag]
