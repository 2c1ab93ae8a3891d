"""Atari: PathNet learns games with A3C actors, parameter servers and one GA worker.

    ./auto_atari_pathnet.sh                                  # a cluster on this machine
    python atari_pathnet.py --games=pong,pong --worker_hosts_num=4 --B=2
    python atari_pathnet.py --job_name=worker --task_index=0 --ps_hosts=a:2222 \\
        --worker_hosts=b:2222,c:2222,d:2222                  # one process of a cluster
    python atari_pathnet.py --play --checkpoint_dir=DIR --play_gif=pong.gif

Each actor plays on a path of the population. Every few seconds the GA worker compares B
actors: the best keeps its path, the others get mutated copies of it. When a task ends,
the best path is frozen, everything else is re-initialized, and the next game is learned
on top of it. The last line, PONG_PONG,TASK1:2123760,TASK2:903680,Done, has the agent
steps of each task.
"""

from common import commandline  # before all else: Ctrl-C is one line from here on

# isort: split
from atari import cluster, launch, settings


def evolve(worker) -> None:
    """PathNet among actors that play all the time: the loop of the GA worker.

    Args:
      worker: atari.ga_worker.GaWorker, which connects to the cluster, keeps checkpoints
        and carries out what is decided here.
    """
    for look in worker.looks():  # every few seconds, until all tasks are over
        if look.task_is_over:
            worker.freeze(look.best())  # its path; everything else is re-initialized
        elif look.all_have_played(drawn := look.draw()):  # B actors
            worker.hand_out(look.overwrite_losers(drawn))  # mutated copies of the best


def take_part(process: cluster.Cluster) -> None:
    """Is one process of a cluster, until all tasks are over."""
    # What follows imports TensorFlow: the process that only watches does without it.
    if process.job == cluster.PS:
        threads = settings.threads(1)
        from atari import server

        server.run(process, threads)
    elif process.is_ga_worker:
        plan = settings.ga_worker(process.actors)
        grid, learning = settings.grid(), settings.learning()
        from atari.ga_worker import GaWorker

        worker = GaWorker(process, grid, learning, plan)
        evolve(worker)
        print(worker.finish(), flush=True)
    else:
        plan = settings.actor(process)
        grid, learning = settings.grid(), settings.learning()
        from atari import actor

        actor.run(process, grid, learning, plan)


def main() -> None:
    """Plays what was learned, is one process of a cluster, or launches a whole one."""
    settings.check_games()
    process = settings.process()
    episodes = settings.play()
    if episodes is not None:
        from atari import play

        play.play(episodes)
    elif process is not None:
        take_part(process)
    else:
        launch.run(settings.launch())


if __name__ == "__main__":
    commandline.run(main, settings.define_flags)
