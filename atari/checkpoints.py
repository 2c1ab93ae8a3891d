"""What a checkpoint of an Atari cluster says besides its arrays, and whether it fits."""

import dataclasses

from a3c import ConvGrid
from common.commandline import UserError

# Fields of ConvGrid that a checkpoint names. The screens are the same for all games.
GRID_FIELDS = ("L", "M", "N", "kernel_num", "stride_size", "actions", "use_lstm")


@dataclasses.dataclass(frozen=True)
class About:
    """What a checkpoint was made with, and what the tasks before it led to.

    Attributes:
      grid: the network. games: names of the tasks. actors: size of the population.
      flags: {name: value}, all flags of the run.
      outcomes: an entry of results.jsonl for each task that is over.
    """

    grid: ConvGrid
    games: tuple[str, ...]
    actors: int
    flags: dict
    outcomes: list[dict]

    def to_json(self) -> dict:
        """As about.json holds it."""
        grid = {name: _as_json(getattr(self.grid, name)) for name in GRID_FIELDS}
        return {
            "grid": grid,
            "games": list(self.games),
            "actors": self.actors,
            "flags": self.flags,
            "outcomes": self.outcomes,
        }


def from_json(facts: dict, folder: str) -> About:
    """The About that `to_json` made; `folder`, that of the checkpoints, is for errors.

    Raises:
      UserError: this is no checkpoint of an Atari cluster.
    """
    if "grid" not in facts:
        raise UserError(f"flag --checkpoint_dir={folder}: no checkpoints of Atari")
    given = facts["grid"]
    grid = ConvGrid(
        L=given["L"],
        M=given["M"],
        N=given["N"],
        kernel_num=tuple(given["kernel_num"]),
        stride_size=tuple(given["stride_size"]),
        actions=tuple(given["actions"]),
        use_lstm=given["use_lstm"],
    )
    return About(
        grid=grid,
        games=tuple(facts["games"]),
        actors=facts["actors"],
        flags=facts["flags"],
        outcomes=facts["outcomes"],
    )


def check_same_settings(saved: About, run: About, folder: str) -> None:
    """Checks that a run can go on with a checkpoint.

    Args:
      saved: of the checkpoint. run: of the run. folder: that of the checkpoints.

    Raises:
      UserError: it was made with other settings; names the first flag that differs.
    """
    pairs = [("games", saved.games, run.games)]
    pairs += [("worker_hosts_num", saved.actors, run.actors)]
    pairs += [(n, getattr(saved.grid, n), getattr(run.grid, n)) for n in GRID_FIELDS]
    for name, theirs, ours in pairs:
        if theirs != ours:
            raise UserError(
                f"flag --checkpoint_dir={folder}: made with --{name}="
                f"{_as_flag(theirs)}, and this run has {_as_flag(ours)}; name "
                "another folder or give the same flags"
            )


def _as_json(value):
    return list(value) if isinstance(value, tuple) else value


def _as_flag(value):
    """A value as it is written on the command line."""
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value).lower()
