"""A3C with PathNet written the plain way: what `benchmarks/atari_speed.py` compares with.

    python benchmarks/plain_a3c.py {ps,worker} INDEX FIRST_PORT WORKERS

All M modules of a layer are computed and multiplied by 1 or 0, every session.run reads
all variables from the parameter server, and an actor plays in one environment.
"""

import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np  # noqa: E402

import pathnet  # noqa: E402
from atari import environments  # noqa: E402
from common import tf1 as tf  # noqa: E402

L, M, N, T_MAX, GAMMA = 4, 10, 4, 20, 0.99
KERNELS = [(8, 8, 4, 8), (4, 4, 8, 8), (3, 3, 8, 8), (392, 256)]
STRIDES = [4, 2, 1]


def variable(name, shape):
    return tf.get_variable(
        name, shape, initializer=tf.truncated_normal_initializer(stddev=0.02)
    )


def features(x, geopath):
    """The whole grid: uint8 [n, 84, 84, 4] -> [n, 256]."""
    x = tf.cast(x, tf.float32) / 255
    for layer, shape in enumerate(KERNELS):
        outputs = []
        if layer == L - 1:
            x = tf.reshape(x, [-1, shape[0]])
        for module in range(M):
            with tf.variable_scope(f"layer{layer}_module{module}"):
                kernel, bias = variable("kernel", shape), variable("bias", shape[-1:])
            if layer == L - 1:
                y = tf.matmul(x, kernel)
            else:
                y = tf.nn.conv2d(x, kernel, STRIDES[layer], "VALID")
            outputs.append(tf.nn.relu(y + bias) * geopath[layer, module])
        x = tf.add_n(outputs)
    return x


def lstm(x, state):
    """A step at a time over one environment: [n, 256] -> [n, 256], state [2, 1, 256]."""
    kernel, bias = variable("lstm/kernel", [512, 1024]), variable("lstm/bias", [1024])
    output, cell = tf.unstack(state)
    outputs = []
    for features_now in tf.split(x, x.shape[0]):
        gates = tf.concat([features_now, output], 1) @ kernel + bias
        enter, fresh, forget, leave = tf.split(gates, 4, axis=1)
        cell = tf.sigmoid(forget + 1) * cell + tf.sigmoid(enter) * tf.tanh(fresh)
        output = tf.sigmoid(leave) * tf.tanh(cell)
        outputs.append(output)
    return tf.concat(outputs, 0), tf.stack([output, cell])


def network(count, geopath, state, actions):
    screens = tf.placeholder(tf.uint8, [count, 84, 84, 4])
    x, state = lstm(features(screens, geopath), state)
    policy, value = variable("policy", [256, actions]), variable("value", [256, 1])
    return screens, x @ policy, (x @ value)[:, 0], state


def act(server, index):
    """Plays and learns for ever, counting the steps on the parameter server."""
    actions = environments.actions("pong")
    device = f"/job:worker/task:{index}"
    with tf.device(tf.train.replica_device_setter(worker_device=device, ps_tasks=1)):
        geopath = tf.placeholder(tf.float32, [L, M])
        state = tf.placeholder(tf.float32, [2, 1, 256])
        with tf.variable_scope("net"):
            screen, logits, value, new_state = network(1, geopath, state, actions)
        with tf.variable_scope("net", reuse=True):
            screens, all_logits, values, _ = network(T_MAX, geopath, state, actions)
        taken = tf.placeholder(tf.int64, [T_MAX])
        returns = tf.placeholder(tf.float32, [T_MAX])
        log_policy = tf.nn.log_softmax(all_logits)
        chosen = tf.reduce_sum(log_policy * tf.one_hot(taken, actions), 1)
        advantage = tf.stop_gradient(returns - values)
        entropy = -tf.reduce_sum(tf.exp(log_policy) * log_policy)
        loss = tf.reduce_sum(tf.square(returns - values)) / 4
        loss -= tf.reduce_sum(chosen * advantage) + 0.01 * entropy
        variables = tf.trainable_variables()
        gradients, _ = tf.clip_by_global_norm(tf.gradients(loss, variables), 40)
        optimizer = tf.train.RMSPropOptimizer(7e-4, 0.99, epsilon=0.1)
        steps = tf.train.create_global_step()
        train = [
            optimizer.apply_gradients(zip(gradients, variables)),
            steps.assign_add(T_MAX),
        ]
        initialize = tf.global_variables_initializer()
        uninitialized = tf.report_uninitialized_variables()
    config = tf.ConfigProto(device_filters=["/job:ps", device])
    session = tf.Session(server.target, config=config)
    if index == 0:
        session.run(initialize)
    while len(session.run(uninitialized)):
        time.sleep(0.2)

    rng = np.random.default_rng(index)
    paths = pathnet.to_geopath(pathnet.random_paths(rng, 1, L, M, N), M)[0]
    environment = environments.make("pong", 1, threads=1)
    observation, _ = environment.reset(seed=index)
    memory = np.zeros([2, 1, 256], np.float32)
    while True:
        seen, chosen_actions, rewards, ends = [], [], [], []
        start = memory
        for _ in range(T_MAX):
            now = np.moveaxis(observation, 1, -1)
            feed = {geopath: paths, state: memory, screen: now}
            scores, memory = session.run([logits, new_state], feed)
            likelihood = np.exp(scores[0] - scores[0].max())
            action = rng.choice(actions, p=likelihood / likelihood.sum())
            observation, reward, over, cut, _ = environment.step(np.array([action]))
            seen.append(now[0])
            chosen_actions.append(action)
            rewards.append(np.clip(reward[0], -1, 1))
            ends.append(float(over[0] or cut[0]))
            memory = memory * (1 - ends[-1])
        now = np.moveaxis(observation, 1, -1)
        following = session.run(value, {geopath: paths, state: memory, screen: now})[0]
        discounted = []
        for reward, end in zip(reversed(rewards), reversed(ends)):
            following = reward + GAMMA * (1 - end) * following
            discounted.append(following)
        feed = {
            geopath: paths,
            state: start,
            screens: np.array(seen),
            taken: chosen_actions,
            returns: discounted[::-1],
        }
        count = session.run([train, steps], feed)[1]
        print(int(count), flush=True)


def main():
    job, index, first_port = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    workers = int(sys.argv[4])
    hosts = [f"localhost:{first_port + n}" for n in range(workers + 1)]
    spec = tf.train.ClusterSpec({"ps": hosts[:1], "worker": hosts[1:]})
    threads = max(1, len(os.sched_getaffinity(0)) // workers)
    config = tf.ConfigProto(intra_op_parallelism_threads=threads)
    server = tf.train.Server(spec, job, index, config=config)
    if job == "ps":
        server.join()
    act(server, index)


if __name__ == "__main__":
    main()
