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
from atari.settings import define_flags
from common import commandline, folders
from common.commandline import UserError, say

FLAGS = flags.FLAGS

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
    commandline.run(main, define_flags)
