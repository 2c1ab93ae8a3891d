"""Tests of the image of a population, all synthetic."""

import numpy as np
from image_helpers import LAYERS, MODULES, colours_in, random_paths, two_paths

from reports import colours, population


def test_count_overlap():
    paths = two_paths()
    assert population.count_overlap(paths) == 1
    assert population.count_overlap(paths[:1]) == 0
    assert population.count_overlap([paths[0], paths[1], paths[0]]) == 3


def test_population_image_cells_are_exact():
    paths = random_paths(7, 3, 4)
    image = population.population_image(paths)
    cell, gap = population.CELL, population.LAYER_GAP
    assert image.dtype == np.uint8
    assert image.shape == (7 * cell - 1, 3 * (4 * cell - 1) + 2 * gap, 3)
    used, unused = colours.task_colour(0), colours.PALE
    assert colours_in(image) == {colours.BACKGROUND, unused, used}
    painted = np.zeros(image.shape[:2], bool)
    for candidate, layer, module in np.ndindex(paths.shape):
        y = candidate * cell
        x = layer * (4 * cell - 1 + gap) + module * cell
        square = np.s_[y : y + cell - 1, x : x + cell - 1]
        expected = used if paths[candidate, layer, module] else unused
        assert colours_in(image[square]) == {expected}
        painted[square] = True
    assert colours_in(image[~painted]) == {colours.BACKGROUND}


def test_population_picture_names_layers_and_shows_what_is_frozen():
    paths = np.zeros((4, LAYERS, MODULES), int)
    fixed = np.zeros((LAYERS, MODULES), int)
    fixed[1, 2] = 1
    plain = population.population_picture(paths, 0 * fixed)
    picture = population.population_picture(paths, fixed)
    image = population.population_image(paths)
    np.testing.assert_array_equal(picture[-len(image) :, -image.shape[1] :], image)
    cell = (population.CELL - 1) ** 2
    assert (picture != plain).any(axis=-1).sum() == cell
    assert (plain[:10, 46:] < 128).any()  # the names of the layers


def test_population_image_takes_booleans_and_one_of_each():
    image = population.population_image(np.ones((1, 1, 1), bool))
    side = population.CELL - 1
    assert image.shape == (side, side, 3)
    assert colours_in(image) == {colours.task_colour(0)}
