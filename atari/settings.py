"""The flags of the Atari wing: the one file that defines and reads them.

`define_flags` says what there is. All other functions read flags and give what they say
as a value, for whoever needs it: nothing else of this wing knows the command line.

TensorFlow is not imported here. Read the flags before it is: its logging defines a flag
`log_dir` as well.
"""

import dataclasses
import os

from absl import flags

import a3c
from atari import checkpoints, cluster, environments, machine
from common import commandline
from common.commandline import LEARNING, NETWORK, PLACE, REPEAT, TASKS, UserError

FLAGS = flags.FLAGS


# --------------------------------------------------------------------------------------
# What the flags say
# --------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class GaWorker:
    """What the GA worker needs to know.

    Attributes:
      games: names of the tasks. B: number of actors that a tournament compares.
      seed: of everything that it draws.
      tournament_seconds, checkpoint_seconds: between two looks, and two checkpoints.
      stop_score: score that ends a task, or None.
      control: "pathnet"; "scratch": nothing is frozen, every task starts on new
        parameters; "finetune": the best path of the first task is trained on, alone;
        "random_frozen": what is frozen is drawn, and untrained; "no_selection": the winner
        of a tournament is drawn.
      folder: of the run. checkpoint_dir: of the checkpoints.
      load_dir: of the checkpoints of a run that has learned the first tasks, or None.
      flags: {name: value} of all flags, for results and checkpoints.
      decisive: {name: default} of the flags that decide what is learned.
      threads: of its server.
    """

    games: tuple[str, ...]
    B: int
    seed: int
    tournament_seconds: float
    checkpoint_seconds: float
    stop_score: float | None
    control: str
    folder: str
    checkpoint_dir: str
    flags: dict
    decisive: dict
    threads: int = 1
    load_dir: str | None = None


@dataclasses.dataclass(frozen=True)
class Actor:
    """What a process of actors needs to know.

    Attributes:
      games: names of the tasks. environments: how many each actor steps at once.
      threads: that compute, and that step environments. seed: of the environments.
      folder: of the run.
    """

    games: tuple[str, ...]
    environments: int
    threads: int
    seed: int
    folder: str


@dataclasses.dataclass(frozen=True)
class Launch:
    """What the launcher of a whole cluster needs to know.

    Attributes:
      games: names of the tasks. seed: for the name of the run's folder.
      log_dir: where that folder is made.
      actors: how many are asked for. fit_memory: whether there may be fewer, if memory
        ends. B: how many of them are compared.
      actors_per_process: the most of them that a process holds; None to choose.
      servers, threads: parameter servers, and threads of a process of actors; None to
        choose. environments: of an actor.
      first_port: of the cluster. isolate: whether it gets a network namespace.
      checkpoint_dir: folder of checkpoints to go on from, or None for one of its own.
      load_dir: as of GaWorker.
      grid: what is built.
      flags, decisive: as of GaWorker.
    """

    games: tuple[str, ...]
    seed: int
    log_dir: str
    actors: int
    fit_memory: bool
    B: int
    actors_per_process: int | None
    servers: int | None
    environments: int
    threads: int | None
    first_port: int
    isolate: bool
    checkpoint_dir: str | None
    load_dir: str | None
    grid: a3c.ConvGrid
    flags: dict
    decisive: dict


@dataclasses.dataclass(frozen=True)
class Play:
    """What is played of a checkpoint.

    Attributes:
      checkpoint_dir: folder with checkpoints.
      task: number of the task, from 1 on; None for the last one begun.
      episodes: how many. gif: file for a GIF of the first one, or None.
      seed: of the environment and of the actions.
    """

    checkpoint_dir: str
    task: int | None
    episodes: int
    gif: str | None
    seed: int


def check_games() -> None:
    """Raises UserError if --games names no game, or one that does not exist."""
    if not FLAGS.games:
        raise UserError("flag --games: names no game; try pong,pong")
    for game in FLAGS.games:
        environments.check(game)


def process() -> cluster.Cluster | None:
    """Which process of a cluster this one is; None if it is not part of one.

    Raises:
      UserError: the flags or TF_CONFIG do not describe a cluster.
    """
    if FLAGS.hostname is not None:
        commandline.say(
            "note: --hostname has no effect: --ps_hosts and --worker_hosts name machines"
        )
    given = FLAGS["worker_hosts_num"].present
    actors = FLAGS.worker_hosts_num if given else None, FLAGS.actors_per_process
    if FLAGS.job_name is not None:
        return cluster.from_flags(
            FLAGS.job_name,
            FLAGS.task_index or 0,
            FLAGS.ps_hosts,
            FLAGS.worker_hosts,
            *actors,
        )
    if "TF_CONFIG" in os.environ:
        return cluster.from_tf_config(os.environ["TF_CONFIG"], *actors)
    if FLAGS.ps_hosts or FLAGS.worker_hosts or FLAGS.task_index is not None:
        raise UserError(
            "flags --ps_hosts, --worker_hosts, --task_index: need --job_name as well"
        )
    return None


def grid() -> a3c.ConvGrid:
    """The network to build.

    Raises:
      UserError: a kernel is larger than its input.
    """
    made = a3c.ConvGrid(
        L=FLAGS.L,
        M=FLAGS.M,
        N=FLAGS.N,
        kernel_num=tuple(map(int, FLAGS.kernel_num)),
        stride_size=tuple(map(int, FLAGS.stride_size)),
        actions=tuple(environments.actions(game) for game in FLAGS.games),
        use_lstm=FLAGS.use_lstm,
        screen=environments.SCREEN,
        frames=environments.FRAMES,
    )
    try:
        made.kernel_shapes()
    except ValueError as error:
        raise UserError(f"flags --kernel_num, --stride_size: {error}") from error
    return made


def learning() -> a3c.Learning:
    """How actors learn."""
    return a3c.Learning(
        t_max=FLAGS.t_max,
        gamma=FLAGS.gamma,
        entropy=FLAGS.entropy,
        value_weight=FLAGS.value_weight,
        learning_rate=FLAGS.learning_rate,
        rms_decay=FLAGS.rms_decay,
        rms_momentum=FLAGS.rms_momentum,
        rms_epsilon=FLAGS.rms_epsilon,
        grad_norm_clip=FLAGS.grad_norm_clip,
        max_time_step=FLAGS.max_time_step,
    )


def ga_worker(actors: int) -> GaWorker:
    """What the GA worker of so many actors does.

    Raises:
      UserError: there are fewer actors than it compares.
    """
    check_actors(FLAGS.B, actors)
    return GaWorker(
        games=tuple(FLAGS.games),
        B=FLAGS.B,
        seed=FLAGS.seed,
        tournament_seconds=FLAGS.tournament_seconds,
        checkpoint_seconds=FLAGS.checkpoint_seconds,
        stop_score=FLAGS.stop_score,
        control=FLAGS.control,
        folder=FLAGS.log_dir,
        checkpoint_dir=_checkpoint_dir()
        or os.path.join(FLAGS.log_dir, checkpoints.FOLDER),
        flags=commandline.flag_values(),
        decisive=_decisive(),
        threads=threads(actors),
        load_dir=_load_dir(),
    )


def actor(process: cluster.Cluster) -> Actor:
    """What each actor of a process does.

    Raises:
      UserError: there are fewer actors than are compared.
    """
    check_actors(FLAGS.B, process.actors)
    return Actor(
        games=tuple(FLAGS.games),
        environments=FLAGS.envs_per_worker,
        threads=threads(process.actor_processes),
        seed=FLAGS.seed,
        folder=FLAGS.log_dir,
    )


def threads(processes: int) -> int:
    """Threads of each of so many processes on this machine."""
    return FLAGS.threads or machine.threads(processes)


def launch() -> Launch:
    """The cluster to launch on this machine.

    Raises:
      UserError: a kernel is larger than its input.
    """
    return Launch(
        games=tuple(FLAGS.games),
        seed=FLAGS.seed,
        log_dir=FLAGS.log_dir,
        actors=FLAGS.worker_hosts_num,
        fit_memory=not FLAGS["worker_hosts_num"].present,
        B=FLAGS.B,
        actors_per_process=FLAGS.actors_per_process,
        servers=FLAGS.ps_hosts_num,
        environments=FLAGS.envs_per_worker,
        threads=FLAGS.threads,
        first_port=FLAGS.st_port_num,
        isolate=FLAGS.isolate,
        checkpoint_dir=_checkpoint_dir(),
        load_dir=_load_dir(),
        grid=grid(),
        flags=commandline.flag_values(),
        decisive=_decisive(),
    )


def play() -> Play | None:
    """What to play of a checkpoint; None unless --play is given.

    Raises:
      UserError: no folder with checkpoints is named.
    """
    if not FLAGS.play:
        return None
    if not FLAGS.checkpoint_dir:
        raise UserError("flag --play: name a folder with --checkpoint_dir")
    return Play(
        checkpoint_dir=_checkpoint_dir(),
        task=FLAGS.play_task,
        episodes=FLAGS.play_episodes,
        gif=FLAGS.play_gif,
        seed=FLAGS.seed,
    )


def _checkpoint_dir():
    """The folder of checkpoints that --checkpoint_dir means; None if it is not given."""
    return checkpoints.find(FLAGS.checkpoint_dir) if FLAGS.checkpoint_dir else None


def _load_dir():
    """The folder of checkpoints that --load_dir means; None if it is not given."""
    return checkpoints.find(FLAGS.load_dir) if FLAGS.load_dir else None


def _decisive():
    """{name: default} of the flags that decide what is learned."""
    names = commandline.flag_names(NETWORK, LEARNING, TASKS, REPEAT)
    return {name: FLAGS[name].default for name in names}


def check_actors(B: int, actors: int) -> None:
    """Raises UserError if there are fewer actors than a tournament compares, B."""
    if actors < B:
        raise UserError(
            f"flag --B={B}: so many actors are compared, and there are {actors}"
        )


# --------------------------------------------------------------------------------------
# The flags
# --------------------------------------------------------------------------------------


def define_flags() -> None:
    """Defines the flags of atari_pathnet.py, in the groups that --help shows."""
    with commandline.flag_group("The tasks", TASKS):
        flags.DEFINE_list(
            "games", "pong,pong", "The tasks, in order: Atari games, or catch."
        )
    with commandline.flag_group("The network", NETWORK):
        _define_network()
    with commandline.flag_group("The tournament, and the end of a task", LEARNING):
        _define_tournament()
    with commandline.flag_group("A3C and RMSProp", LEARNING):
        _define_a3c()
    with commandline.flag_group("The size of a cluster", LEARNING):
        _define_size()
    with commandline.flag_group("Repeats", REPEAT):
        flags.DEFINE_integer(
            "seed", 0, "Seed of paths, parameters and games.", 0, 2**31 - 1
        )
    with commandline.flag_group("The processes of a cluster", PLACE):
        flags.DEFINE_integer(
            "actors_per_process",
            None,
            "Number of actors that a process holds, which take turns; if none is given, "
            "as many as leave each process a core of this machine, and 1 in a cluster "
            "whose processes are started one by one.",
            lower_bound=1,
        )
        flags.DEFINE_integer(
            "st_port_num", 2222, "First of the ports that its processes use.", 1, 65535
        )
        flags.DEFINE_bool(
            "isolate", True, "Whether it gets a network namespace, if possible."
        )
        _define_process()
    with commandline.flag_group("Files", PLACE):
        _define_files()
    with commandline.flag_group("Watching what was learned", PLACE):
        _define_play()
    # The name of earlier versions. It is in no group: --help has the new one.
    flags.DEFINE_alias("record", "play_gif")
    # One of the original, which is as little of a group.
    flags.DEFINE_string("hostname", None, "Has no effect.")
    _check_values()


def _define_network():
    flags.DEFINE_integer(
        "L", 4, "Number of layers; all but the last are conv layers.", lower_bound=2
    )
    flags.DEFINE_integer("M", 10, "Number of modules in a layer.", lower_bound=1)
    flags.DEFINE_integer(
        "N", 4, "The most modules of a layer that a path uses.", lower_bound=1
    )
    flags.DEFINE_list(
        "kernel_num", "8,4,3", "Side of the kernels of each conv layer, in pixels."
    )
    flags.DEFINE_list("stride_size", "4,2,1", "Strides of each conv layer, in pixels.")
    flags.DEFINE_bool(
        "use_lstm", True, "Whether an LSTM of 256 units follows the grid."
    )


def _define_tournament():
    flags.DEFINE_integer(
        "B", 3, "Number of actors that a tournament compares.", lower_bound=2
    )
    flags.DEFINE_float(
        "tournament_seconds", 5, "Seconds between two looks of the GA worker."
    )
    flags.DEFINE_integer(
        "max_time_step",
        a3c.Learning.max_time_step,
        "The most agent steps of a task.",
        lower_bound=1,
    )
    flags.DEFINE_float(
        "stop_score", None, "Mean return over the last 30 episodes that ends a task."
    )
    flags.DEFINE_enum(
        "control",
        "pathnet",
        ["pathnet", "scratch", "finetune", "random_frozen", "no_selection"],
        "What later tasks start with: frozen modules, nothing, all of the best path, or "
        "frozen modules that are drawn and untrained; no_selection draws the winners of "
        "tournaments.",
    )


def _define_a3c():
    default = a3c.Learning
    flags.DEFINE_integer(
        "t_max", default.t_max, "Agent steps between two updates.", lower_bound=1
    )
    flags.DEFINE_float("gamma", default.gamma, "Discount of rewards, an agent step.")
    flags.DEFINE_float(
        "entropy", default.entropy, "Weight of the policy's entropy in the loss."
    )
    flags.DEFINE_float(
        "value_weight", default.value_weight, "Weight of the value's error in the loss."
    )
    flags.DEFINE_float(
        "learning_rate",
        default.learning_rate,
        "Learning rate of RMSProp at the start, for each environment of an actor; it "
        "falls linearly to 0.",
    )
    flags.DEFINE_float(
        "rms_decay", default.rms_decay, "Decay of the mean square in RMSProp."
    )
    flags.DEFINE_float(
        "rms_momentum", default.rms_momentum, "Momentum of the steps of RMSProp."
    )
    flags.DEFINE_float(
        "rms_epsilon",
        default.rms_epsilon,
        "Constant that RMSProp adds to the mean square.",
    )
    flags.DEFINE_float(
        "grad_norm_clip",
        default.grad_norm_clip,
        "Largest norm of an actor's gradient, the mean over its environments.",
    )


def _define_size():
    flags.DEFINE_integer(
        "worker_hosts_num",
        10,
        "Number of actors of a cluster on this machine; there are fewer if memory does not suffice.",
        lower_bound=2,
    )
    flags.DEFINE_integer(
        "ps_hosts_num",
        None,
        "Number of parameter servers of a cluster on this machine; if none is given, 1 "
        "for each 16 actors.",
        lower_bound=1,
    )
    flags.DEFINE_integer(
        "envs_per_worker", 16, "Number of environments of an actor.", lower_bound=1
    )
    flags.DEFINE_integer(
        "threads",
        None,
        "Number of threads of a process of actors; if none is given, its share of this "
        "machine's cores.",
        lower_bound=1,
    )


def _define_process():
    flags.DEFINE_enum(
        "job_name", None, ["ps", "worker"], "Kind of this process in its cluster."
    )
    flags.DEFINE_integer(
        "task_index",
        None,
        "Index of this process among those of its kind; the last worker is the GA worker.",
        lower_bound=0,
    )
    flags.DEFINE_list("ps_hosts", [], "host:port of each parameter server.")
    flags.DEFINE_list("worker_hosts", [], "host:port of each worker.")


def _define_files():
    flags.DEFINE_string(
        "log_dir",
        "logs",
        "Folder in which a launched cluster makes that of its run; for one process of a "
        "cluster: the folder of the run.",
        allow_override=True,  # TensorFlow's logging has a flag of this name
    )
    flags.DEFINE_string(
        "checkpoint_dir",
        None,
        "Folder of checkpoints, or of the run that has them, to resume from and to save "
        "to; if none is given, checkpoints in the folder of the run.",
    )
    flags.DEFINE_string(
        "load_dir",
        None,
        "Folder of checkpoints, or of the run that has them, of a run that has learned "
        "the first of --games; they are not learned again.",
    )
    flags.DEFINE_float("checkpoint_seconds", 30, "Seconds between two checkpoints.")


def _define_play():
    flags.DEFINE_bool("play", False, "Play what was learned instead of learning.")
    flags.DEFINE_integer(
        "play_task",
        None,
        "Number of the task to play, from 1; if none is given, the last one.",
        lower_bound=1,
    )
    flags.DEFINE_integer(
        "play_episodes",
        1,
        "Number of episodes to play; more if the GIF needs them.",
        lower_bound=1,
    )
    flags.DEFINE_string(
        "play_gif", None, "File for a GIF of the first episodes, of 100 frames or more."
    )


def _check_values():
    """What a flag's type does not say about its value."""
    for name in (
        "learning_rate",
        "rms_epsilon",
        "grad_norm_clip",
        "checkpoint_seconds",
    ):
        flags.register_validator(name, lambda v: v > 0, "must be positive")
    for name in ("entropy", "value_weight", "tournament_seconds"):
        flags.register_validator(name, lambda v: v >= 0, "must not be negative")
    for name in ("gamma", "rms_decay", "rms_momentum"):
        flags.register_validator(name, lambda v: 0 <= v < 1, "must lie in [0, 1)")
    for name in ("kernel_num", "stride_size"):
        flags.register_multi_flags_validator(
            [name, "L"],
            lambda f, name=name: (
                len(f[name]) == f["L"] - 1
                and all(v.isdecimal() and int(v) > 0 for v in f[name])
            ),
            f"{name} takes L - 1 positive whole numbers, one for each conv layer",
        )
    flags.register_multi_flags_validator(
        ["N", "M"],
        lambda f: f["N"] <= f["M"],
        "N active modules of M: N may not exceed M",
    )
