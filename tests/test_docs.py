"""README.md and docs/ name what there is: flags, files, figures, links, make's targets."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text()
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
}
TEXT = "\n".join(PAGES.values())
SETTINGS = ["supervised/settings.py", "atari/settings.py", "plotting.py"]
BENCHMARKS = sorted((ROOT / "benchmarks").glob("*.py"))
MODULES = [
    *ROOT.glob("*.py"),
    *BENCHMARKS,
    *(
        module
        for folder in ("supervised", "atari", "reports", "common")
        for module in (ROOT / folder).glob("*.py")
        if module.name != "__init__.py"
    ),
]


def defined_flags(files):
    """Names of the flags that files define, plotting's table of pictures included."""
    code = "\n".join(file.read_text() for file in files)
    return set(re.findall(r'DEFINE_\w+\(\s*"(\w+)"', code)) | set(
        re.findall(r'^    "(\w+)": \(\s*\w+\.plot_', code, re.M)
    )


def anchors(page):
    """The anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", page, re.M)
    return {re.sub(r"[^\w\- ]", "", h).lower().replace(" ", "-") for h in headings}


def links():
    """(page, target) of every link, and of every picture, that leads into the project."""
    return [
        (name, target)
        for name, page in PAGES.items()
        for target in re.findall(r"\]\(([^)\s]+)\)", page)
        if not target.startswith("https://")
    ]


def resolves(page, target):
    """Whether a link on a page leads to a file, and to a heading if it names one."""
    file, _, anchor = target.partition("#")
    path = (ROOT / page).parent / file if file else ROOT / page
    return path.exists() and (not anchor or anchor in anchors(path.read_text()))


def test_every_named_flag_exists():
    defined = defined_flags([*(ROOT / name for name in SETTINGS), *BENCHMARKS])
    defined |= {f"no{name}" for name in defined}
    named = set(re.findall(r"--(\w+)", TEXT))
    assert named > {"writeback", "games", "usage", "nocentred", "play_gif"}
    # Those of the command line itself, TensorBoard's, and sbatch's.
    assert named - defined <= {"help", "flagfile", "logdir", "array", "cpus"}


def test_every_flag_is_in_the_list_of_flags():
    defined = defined_flags(ROOT / name for name in SETTINGS)
    assert defined <= set(re.findall(r"--(\w+)", PAGES["docs/flags.md"]))


def test_every_figure_is_shown_and_every_shown_one_exists():
    shown = set(re.findall(r"\]\((?:\.\./)?figures/([\w.]+)\)", TEXT))
    figures = {path.name for path in (ROOT / "figures").iterdir()}
    assert shown == {name for name in figures if not name.endswith(".jsonl")}


def test_every_link_resolves():
    assert [link for link in links() if not resolves(*link)] == []


def test_every_page_is_linked_from_the_readme():
    linked = {target for page, target in links() if page == "README.md"}
    assert PAGES.keys() - {"README.md"} <= linked


def test_every_named_file_and_folder_exists():
    files = set(re.findall(r"`([\w/.-]+\.(?:py|sh|flags|toml))`", TEXT))
    layout = PAGES["README.md"].split("\n## Where things are\n")[1]
    folders = set(re.findall(r"`(\w+/)`", layout + PAGES["docs/design.md"]))
    assert {"pathnet.py", "supervised/settings.py"} < files
    assert {"supervised/", "atari/", "reports/", "common/", "presets/"} < folders
    missing = [name for name in files | folders if not (ROOT / name).exists()]
    assert sorted(missing) == []


def test_every_module_has_its_place_in_the_design():
    named = set(re.findall(r"`([\w/]+\.py)`", PAGES["docs/design.md"]))
    modules = {module.relative_to(ROOT).as_posix() for module in MODULES}
    assert sorted(modules - named) == []


def test_every_target_of_make_exists():
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M))
    named = set(re.findall(r"(?:^    |`)make (\w+)", TEXT, re.M))
    assert named >= {"run", "test", "lint"}
    assert named <= targets


@pytest.mark.parametrize(
    "script", ["binary_mnist_pathnet.py", "cifar_svhn_pathnet.py", "images_pathnet.py"]
)
def test_the_loop_of_the_readme_is_that_of_the_scripts(script):
    steps = r"\.(repeats|tournaments|draw|train|overwrite_losers|freeze|finish)\("
    main = (ROOT / script).read_text().split("\ndef main() -> None:\n")[1]
    assert re.findall(steps, PAGES["README.md"]) == re.findall(steps, main)
