"""Tests of shell.py: what it prints can be pasted into a shell."""

import shlex
import subprocess
import sys

import pytest

from common import shell


@pytest.mark.parametrize("is_below", [True, False])
def test_python_runs_a_script_from_where_the_user_stands(
    tmp_path, monkeypatch, is_below
):
    script = tmp_path / "a script.py"
    script.write_text("import sys; print(sys.argv[1:], sys.executable)")
    program = tmp_path / "env" / "bin" / "python"
    program.parent.mkdir(parents=True)
    program.symlink_to(sys.executable)
    monkeypatch.setattr(sys, "executable", str(program))
    cwd = tmp_path if is_below else tmp_path / "env"
    monkeypatch.chdir(cwd)
    command = shell.python(str(script), "--folder=a b")
    assert (shlex.split(command)[0] == "env/bin/python") == is_below
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert done.stdout.startswith("['--folder=a b']"), done


def test_a_python_that_is_on_the_path_is_named_alone(tmp_path, monkeypatch):
    (tmp_path / "python").symlink_to(sys.executable)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert shell.python("script.py") == "python script.py"


def test_tensorboard_is_the_one_beside_python(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python"))
    assert shell.tensorboard("logs/a b") == "tensorboard '--logdir=logs/a b'"
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "tensorboard").touch()
    assert shell.tensorboard("logs") == "bin/tensorboard --logdir=logs"
