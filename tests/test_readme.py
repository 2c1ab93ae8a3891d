"""The README names what there is: flags, files, figures."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
SOURCES = [*ROOT.glob("*.py"), *ROOT.glob("[a-z]*/*.py")]


def test_every_flag_of_the_readme_exists():
    code = "\n".join(source.read_text() for source in SOURCES)
    defined = set(re.findall(r'DEFINE_\w+\(\s*"(\w+)"', code))
    defined |= set(
        re.findall(r'^    "(\w+)": \(\s*plots\.plot_', code, re.M)
    )  # plotting.py's
    defined |= {f"no{name}" for name in defined}
    named = set(re.findall(r"--(\w+)", README))
    assert named > {"writeback", "games", "usage", "nocentred"}
    # absl's own, and TensorBoard's.
    assert named - defined <= {"help", "flagfile", "logdir"}


def test_every_figure_is_shown_and_every_shown_one_exists():
    shown = set(re.findall(r"\]\((figures/[\w.]+)\)", README))
    figures = {f"figures/{path.name}" for path in (ROOT / "figures").iterdir()}
    assert shown == {name for name in figures if not name.endswith(".jsonl")}


def test_every_file_of_the_design_exists_and_every_script_is_in_it():
    design = README.split("\n## Design\n")[1]
    rows = [
        line.split("|")[1] for line in design.splitlines() if line.startswith("| `")
    ]
    files = set(re.findall(r"`([\w/]+(?:\.py)?)`", "".join(rows)))
    assert all((ROOT / name).exists() for name in files)
    unnamed = {
        str(source.relative_to(ROOT))
        for source in SOURCES
        if source.parent.name not in ("tests", "benchmarks")
        and source.name != "__init__.py"
    } - files
    assert not unnamed
