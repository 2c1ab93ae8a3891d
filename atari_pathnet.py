"""Atari: PathNet learns games with A3C actors, parameter servers and one GA worker.

    ./auto_atari_pathnet.sh                                  # a cluster on this machine
    python atari_pathnet.py --games=pong,pong --worker_hosts_num=4 --B=2
    python atari_pathnet.py --job_name=worker --task_index=0 --ps_hosts=a:2222 \\
        --worker_hosts=b:2222,c:2222,d:2222                  # one process of a cluster
    python atari_pathnet.py --play --checkpoint_dir=DIR --record=pong.gif

Every actor plays on a path of its own. Now and then the GA worker compares B actors: the
best keeps its path, the others get mutated copies. When a task ends, the best path is
frozen, everything else starts again, and the next game is learned on top of it. The last
line, PONG_PONG,TASK1:2123760,TASK2:903680,Done, has the agent steps of each task.
"""

import dataclasses
import datetime
import os

from absl import flags

from atari import cluster, environments
from common import commandline, folders
from common.commandline import UserError, say

FLAGS = flags.FLAGS

flags.DEFINE_list("games", "pong,pong", "The tasks, in order: Atari games, or catch.")
flags.DEFINE_integer("L", 4, "Layers of the grid; all but the last are conv layers.", 2)
flags.DEFINE_integer("M", 10, "Modules a layer.", 1)
flags.DEFINE_integer("N", 4, "Most modules of a layer that a path uses.", 1)
flags.DEFINE_list("kernel_num", "8,4,3", "Side of the kernels of each conv layer.")
flags.DEFINE_list("stride_size", "4,2,1", "Strides of each conv layer.")
flags.DEFINE_bool("use_lstm", True, "Whether an LSTM of 256 units follows the grid.")
flags.DEFINE_integer("B", 3, "Actors that the GA worker compares.", 2)
flags.DEFINE_float("tournament_seconds", 5, "Between two looks of the GA worker.")
flags.DEFINE_integer("max_time_step", 15_000_000, "Most agent steps a task.", 1)
flags.DEFINE_float(
    "stop_score", None, "Mean return over the last 30 episodes that ends a task."
)
flags.DEFINE_enum(
    "control",
    "pathnet",
    ["pathnet", "scratch", "finetune"],
    "What later tasks start with: frozen modules, nothing, or all of the best path.",
)
flags.DEFINE_integer("t_max", 20, "Agent steps between two updates.", 1)
flags.DEFINE_float("gamma", 0.99, "Discount of rewards an agent step.")
flags.DEFINE_float("entropy", 0.01, "Weight of the policy's entropy in the loss.")
flags.DEFINE_float("value_weight", 0.5, "Weight of the value's error in the loss.")
flags.DEFINE_float(
    "learning_rate",
    7e-4,
    "Of RMSProp at first, for each environment of an actor; falls linearly to 0.",
)
flags.DEFINE_float("rms_decay", 0.99, "Of RMSProp's mean square.")
flags.DEFINE_float("rms_momentum", 0.0, "Of RMSProp's steps.")
flags.DEFINE_float("rms_epsilon", 0.1, "Of RMSProp, added to its mean square.")
flags.DEFINE_float(
    "grad_norm_clip", 5, "Largest norm of an actor's gradient, the mean over its games."
)
flags.DEFINE_integer(
    "worker_hosts_num", 10, "Actors of a cluster on this machine; fewer if memory ends.", 2
)  # fmt: skip
flags.DEFINE_integer(
    "ps_hosts_num", None, "Parameter servers of one; default: 1 for each 16 actors.", 1
)
flags.DEFINE_integer("st_port_num", 2222, "First of its ports.", 1, 65535)
flags.DEFINE_bool("isolate", True, "Give it a network of its own, if possible.")
flags.DEFINE_integer(
    "envs_per_worker", None, "Environments of an actor; default: by cores and actors.", 1
)  # fmt: skip
flags.DEFINE_integer(
    "threads", None, "Of an actor; default: its share of this machine's cores.", 1
)
flags.DEFINE_enum("job_name", None, ["ps", "worker"], "What this process is.")
flags.DEFINE_integer(
    "task_index", None, "Which of these; the last worker is the GA's.", 0
)
flags.DEFINE_list("ps_hosts", [], "host:port of each parameter server.")
flags.DEFINE_list("worker_hosts", [], "host:port of each worker.")
flags.DEFINE_string(
    "log_dir", "logs", "Where a cluster makes its folder; of one process: that folder.",
    allow_override=True,
)  # fmt: skip
flags.DEFINE_string(
    "checkpoint_dir", None, "Goes on from there, saves there; default: in the folder."
)
flags.DEFINE_float("checkpoint_seconds", 30, "Between two checkpoints.")
flags.DEFINE_integer("seed", 0, "Of paths, parameters and games.", 0, 2**31 - 1)
flags.DEFINE_bool("play", False, "Watch what was learned instead of learning.")
flags.DEFINE_integer(
    "play_task", None, "Which task to play, from 1; default: the last.", 1
)
flags.DEFINE_integer("play_episodes", 1, "Episodes to play.", 1)
flags.DEFINE_string("record", None, "A GIF of the first of these episodes.")

for name in ("learning_rate", "rms_epsilon", "grad_norm_clip", "checkpoint_seconds"):
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
    ["N", "M"], lambda f: f["N"] <= f["M"], "N active modules of M: N may not exceed M"
)

ENVIRONMENTS_A_CORE = 16  # enough to make use of a core's width
LEAST_ENVIRONMENTS = 8
ACTORS_A_SERVER = 16


def this_role():
    """What this process is: a cluster.Cluster, or None to launch a whole one here."""
    if FLAGS.job_name is not None:
        return cluster.from_flags(
            FLAGS.job_name, FLAGS.task_index or 0, FLAGS.ps_hosts, FLAGS.worker_hosts
        )
    if "TF_CONFIG" in os.environ:
        return cluster.from_tf_config(os.environ["TF_CONFIG"])
    if FLAGS.ps_hosts or FLAGS.worker_hosts or FLAGS.task_index is not None:
        raise UserError(
            "flags --ps_hosts, --worker_hosts, --task_index: need --job_name as well"
        )
    return None


def check_actors(actors):
    """Raises UserError if the population is too small for a tournament."""
    if actors < FLAGS.B:
        raise UserError(
            f"flag --B={FLAGS.B}: so many actors are compared, and there are {actors}"
        )


def threads(actors):
    """Threads of one of so many processes that share this machine's cores."""
    return FLAGS.threads or max(1, cluster.cores() // actors)


def launch():
    """Runs a whole cluster on this machine, sized to it."""
    if not FLAGS.isolate or not cluster.isolate():
        say(
            "no network of its own here: every process that can reach the ports of this "
            "machine can command the cluster; see the README"
        )
    actors = FLAGS.worker_hosts_num
    servers = FLAGS.ps_hosts_num or 1 + (actors - 1) // ACTORS_A_SERVER
    if not FLAGS["worker_hosts_num"].present:
        actors = cluster.fitting_actors(actors, servers)
        if actors < FLAGS.worker_hosts_num:
            say(f"{actors} actors in place of {FLAGS.worker_hosts_num}: memory ends")
    check_actors(actors)
    cluster.check_ports(FLAGS.st_port_num, servers + actors + 1)
    now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    label = f"atari__{'_'.join(FLAGS.games)}__seed{FLAGS.seed}__{now}"
    folder = folders.new(FLAGS.log_dir, label)
    say(
        f"parameter servers: {servers}, GA workers: 1, actors: {actors}, each with "
        f"environments: {environments_an_actor(actors)}, threads: {threads(actors)}; logs "
        f"in {folder}"
    )
    line = cluster.launch(servers, actors, FLAGS.st_port_num, folder)
    print(f"Results: {folder}\ntensorboard --logdir={folder}")
    print(line)


def environments_an_actor(actors):
    """How many environments an actor steps at once."""
    share = ENVIRONMENTS_A_CORE * cluster.cores() // actors
    return FLAGS.envs_per_worker or max(LEAST_ENVIRONMENTS, share)


def work(role):
    """Is one process of a cluster, until all tasks are over."""
    # Here, since the process that only watches the others can do without TensorFlow.
    from atari import actor as atari_actor
    from atari import ga_worker as atari_ga_worker
    from atari import parameter_servers

    if role.job == cluster.PS:
        parameter_servers.serve(role, threads(1)).join()
    check_actors(role.actors)
    grid = _of_flags(
        parameter_servers.Grid,
        kernel_num=tuple(map(int, FLAGS.kernel_num)),
        stride_size=tuple(map(int, FLAGS.stride_size)),
        actions=tuple(environments.actions(game) for game in FLAGS.games),
    )
    learning = _of_flags(parameter_servers.Learning)
    try:
        grid.kernel_shapes()
    except ValueError as error:
        raise UserError(f"flags --kernel_num, --stride_size: {error}") from error
    if role.is_ga_worker:
        settings = _of_flags(
            atari_ga_worker.Settings,
            games=tuple(FLAGS.games),
            folder=FLAGS.log_dir,
            checkpoint_dir=FLAGS.checkpoint_dir
            or os.path.join(FLAGS.log_dir, "checkpoints"),
            flags=commandline.flag_values(),
        )
        atari_ga_worker.run(role, grid, learning, settings, threads(role.actors))
    else:
        atari_actor.run(
            role,
            grid,
            learning,
            FLAGS.games,
            environments_an_actor(role.actors),
            threads(role.actors),
            FLAGS.seed,
            FLAGS.log_dir,
        )


def _of_flags(kind, **given):
    """A dataclass whose fields are flags of the same names, but for those given."""
    names = {field.name for field in dataclasses.fields(kind)} - given.keys()
    return kind(**{name: FLAGS[name].value for name in names}, **given)


def main():
    if not FLAGS.games:
        raise UserError("flag --games: names no game; try pong,pong")
    for game in FLAGS.games:
        environments.check(game)
    role = this_role()
    if FLAGS.play:
        from atari import play as atari_play

        if not FLAGS.checkpoint_dir:
            raise UserError("flag --play: name a folder with --checkpoint_dir")
        atari_play.play(
            FLAGS.checkpoint_dir,
            FLAGS.play_task,
            FLAGS.play_episodes,
            FLAGS.record,
            FLAGS.seed,
        )
    elif role is None:
        launch()
    else:
        work(role)


if __name__ == "__main__":
    commandline.run(main)
