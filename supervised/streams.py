"""Streams of random numbers: one for each purpose, task and generation."""

import numpy as np

# The purposes.
FAKE_DATA, NOISE, POPULATION, TOURNAMENT, FROZEN, TRAIN_IMAGES, PERMUTATION = range(7)


def random_stream(
    seed: int, purpose: int, task: int, generation: int = 0
) -> np.random.Generator:
    """The generator for one purpose in one task and generation.

    Nothing depends on how many numbers were drawn before, so any generation can be
    computed again from the seed alone.
    """
    key = (purpose, task, generation)
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))
