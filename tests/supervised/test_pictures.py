"""Tests of which pictures are drawn of a run, and of what became of them."""

import pytest

from supervised import pictures


@pytest.fixture
def drawn(monkeypatch):
    """What would be drawn: (function, arguments without the Learned of a repeat)."""
    calls = []
    monkeypatch.setattr(
        pictures,
        "_draw_repeat",
        lambda learned, scratch: calls.append((learned.result["control"], scratch)),
    )
    monkeypatch.setattr(
        pictures,
        "_draw_controls",
        lambda folder, results: calls.append((folder, len(results))),
    )
    return calls


def learned(control, curve=None):
    tasks = [{"curve": curve}, {"curve": curve}]
    return pictures.Learned("", [], {"control": control, "tasks": tasks}, [], None)


def test_each_repeat_of_one_control_is_drawn(drawn):
    of_run = pictures.Pictures("folder", ["scratch"])
    of_run.add(learned("scratch", "curve"))
    of_run.add(learned("scratch"))
    of_run.finish()
    assert drawn == [("scratch", []), ("scratch", [])]


@pytest.mark.parametrize("order", [["scratch", "pathnet"], ["pathnet", "scratch"]])
def test_of_several_controls_pathnet_is_drawn_beside_scratch(drawn, order):
    of_run = pictures.Pictures("folder", order)
    for seed in range(2):
        for control in order:
            of_run.add(learned(control, f"{control} {seed}"))
    of_run.finish()
    assert drawn == [
        ("pathnet", ["scratch 0", "scratch 0"]),
        ("pathnet", ["scratch 1", "scratch 1"]),
        ("folder", 4),
    ]


def test_controls_without_pathnet_are_compared_alone(drawn):
    of_run = pictures.Pictures("folder", ["finetune", "scratch"])
    of_run.add(learned("finetune"))
    of_run.add(learned("scratch"))
    of_run.finish()
    assert drawn == [("folder", 2)]


def test_a_picture_that_cannot_be_written_is_an_error(monkeypatch):
    def refuse(learned, scratch):
        raise OSError(28, "No space left on device", "paths.png")

    monkeypatch.setattr(pictures, "_draw_repeat", refuse)
    of_run = pictures.Pictures("folder", ["pathnet"])
    of_run.add(learned("pathnet"))
    with pytest.raises(OSError, match="paths.png"):
        of_run.finish()
    with pytest.raises(OSError, match="paths.png"):
        of_run.add(learned("pathnet"))
