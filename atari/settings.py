"""The flags of atari_pathnet.py. Importing this file imports no TensorFlow."""

from absl import flags

from common import commandline
from common.commandline import LEARNING, NETWORK, PLACE, REPEAT, TASKS


def define_flags() -> None:
    """The flags of atari_pathnet.py, with what each decides."""
    _define_network_flags()
    _define_learning_flags()
    _define_evolution_flags()
    _define_cluster_flags()
    _define_output_flags()
    _define_play_flags()
    _validate()


def _define_network_flags():
    with commandline.flag_group("Tasks", TASKS):
        flags.DEFINE_list(
            "games", "pong,pong", "Names of the tasks, in order: Atari games, or catch."
        )
    with commandline.flag_group("Grid", NETWORK):
        flags.DEFINE_integer(
            "L", 4, "Number of layers; all but the last are conv layers.", 2
        )
        flags.DEFINE_integer("M", 10, "Number of modules a layer.", 1)
        flags.DEFINE_integer("N", 4, "Most modules of a layer that a path uses.", 1)
        flags.DEFINE_list(
            "kernel_num", "8,4,3", "Side of the kernels of each conv layer, in pixels."
        )
        flags.DEFINE_list(
            "stride_size", "4,2,1", "Stride of each conv layer, in pixels."
        )
        flags.DEFINE_bool(
            "use_lstm", True, "Whether an LSTM of 256 units follows the grid."
        )


def _define_learning_flags():
    with commandline.flag_group("A3C", LEARNING):
        flags.DEFINE_integer("t_max", 20, "Agent steps between two updates.", 1)
        flags.DEFINE_float("gamma", 0.99, "Discount of rewards an agent step.")
        flags.DEFINE_float(
            "entropy", 0.01, "Weight of the policy's entropy in the loss."
        )
        flags.DEFINE_float(
            "value_weight", 0.5, "Weight of the value's error in the loss."
        )
        flags.DEFINE_float(
            "learning_rate",
            7e-4,
            "Learning rate of RMSProp at the start of a task, for each environment of an "
            "actor; it falls linearly to 0.",
        )
        flags.DEFINE_float(
            "rms_decay", 0.99, "Decay of RMSProp's running mean of squared gradients."
        )
        flags.DEFINE_float("rms_momentum", 0.0, "Momentum of RMSProp's steps.")
        flags.DEFINE_float(
            "rms_epsilon", 0.1, "Epsilon that RMSProp adds to its mean square."
        )
        flags.DEFINE_float(
            "grad_norm_clip",
            5,
            "Largest norm of an actor's gradient, which is the mean over its "
            "environments.",
        )


def _define_evolution_flags():
    with commandline.flag_group("Evolution", LEARNING):
        flags.DEFINE_integer("B", 3, "Number of actors that the GA worker compares.", 2)
        flags.DEFINE_float(
            "tournament_seconds", 5, "Seconds between two looks of the GA worker."
        )
        flags.DEFINE_integer("max_time_step", 15_000_000, "Most agent steps a task.", 1)
        flags.DEFINE_float(
            "stop_score",
            None,
            "Mean return over the last 30 episodes that ends a task.",
        )
        flags.DEFINE_enum(
            "control",
            "pathnet",
            ["pathnet", "scratch", "finetune"],
            "What later tasks start with: frozen modules (pathnet), nothing (scratch), or "
            "all parameters of the first task's best path (finetune).",
        )
    with commandline.flag_group("Repeat", REPEAT):
        flags.DEFINE_integer(
            "seed", 0, "Seed of paths, parameters and games.", 0, 2**31 - 1
        )


def _define_cluster_flags():
    with commandline.flag_group("Actors and servers", LEARNING):
        flags.DEFINE_integer(
            "worker_hosts_num",
            10,
            "Number of actors of a cluster on this machine; fewer if memory does not "
            "hold them.",
            2,
        )
        flags.DEFINE_integer(
            "ps_hosts_num",
            None,
            "Number of parameter servers of a cluster on this machine; without it, 1 for "
            "each 16 actors.",
            1,
        )
        flags.DEFINE_integer(
            "envs_per_worker",
            None,
            "Number of environments of an actor; without it, by cores and actors.",
            1,
        )
        flags.DEFINE_integer(
            "threads",
            None,
            "Number of threads of an actor; without it, its share of this machine's "
            "cores.",
            1,
        )
    with commandline.flag_group("Cluster", PLACE):
        flags.DEFINE_integer(
            "st_port_num", 2222, "First port of a cluster on this machine.", 1, 65535
        )
        flags.DEFINE_bool(
            "isolate",
            True,
            "Whether a cluster on this machine gets a network of its own, if possible.",
        )
        flags.DEFINE_enum(
            "job_name", None, ["ps", "worker"], "Kind of this process of a cluster."
        )
        flags.DEFINE_integer(
            "task_index",
            None,
            "Place of this process in the list of its kind; the last worker is the GA "
            "worker.",
            0,
        )
        flags.DEFINE_list(
            "ps_hosts", [], "Addresses host:port of all parameter servers."
        )
        flags.DEFINE_list("worker_hosts", [], "Addresses host:port of all workers.")


def _define_output_flags():
    with commandline.flag_group("Output", PLACE):
        flags.DEFINE_string(
            "log_dir",
            "logs",
            "Folder in which a cluster makes its own; of a single process: that folder.",
            allow_override=True,
        )
        flags.DEFINE_string(
            "checkpoint_dir",
            None,
            "Folder of checkpoints that a run goes on from and saves to; without it, one "
            "in the folder of the run.",
        )
        flags.DEFINE_float("checkpoint_seconds", 30, "Seconds between two checkpoints.")


def _define_play_flags():
    with commandline.flag_group("Watching what was learned", PLACE):
        flags.DEFINE_bool(
            "play", False, "Whether to play a task of a checkpoint instead of learning."
        )
        flags.DEFINE_integer(
            "play_task",
            None,
            "Number of the task to play, from 1; without it, the last.",
            1,
        )
        flags.DEFINE_integer("play_episodes", 1, "Number of episodes to play.", 1)
        flags.DEFINE_string(
            "record", None, "GIF file to make of the first episode that is played."
        )


def _validate():
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
