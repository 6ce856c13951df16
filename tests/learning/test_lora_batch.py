"""How do views of one situation share their tokens?"""

import numpy as np
import pytest

from app.learning.lora.batch import Row, batches, pack, row

SHARED = [1, 2, 3]


def some_row() -> Row:
    return row([[*SHARED, 7, 9], [*SHARED, 8, 7, 9]], label=2, weight=1.5)


def test_a_row_is_the_common_beginning_and_what_is_left_of_each_view() -> None:
    assert some_row() == Row(SHARED, ([7, 9], [8, 7, 9]), 2, 1.5)


@pytest.mark.parametrize(
    "views",
    [[[1, 2], [1, 2]], [[1, 2], [1, 2, 3]], [[1, 2]], [[1, 2], [3, 4]]],
    ids=["equal", "one begins the other", "single", "nothing common"],
)
def test_no_tail_is_empty_and_every_view_is_whole(views: list[list[int]]) -> None:
    made = row(views, label=0)
    assert all(made.tails)
    assert [[*made.shared, *tail] for tail in made.tails] == views


def test_tails_continue_the_shared_part_each_from_its_end() -> None:
    batch = pack([some_row()])
    assert batch.tokens.tolist() == [[1, 2, 3, 7, 9, 8, 7, 9]]
    assert batch.positions.tolist() == [[0, 1, 2, 3, 4, 3, 4, 5]]
    assert batch.tails.tolist() == [[0, 0, 0, 1, 1, 2, 2, 2]]


def test_labels_are_read_at_the_last_token_of_every_view() -> None:
    batch = pack([some_row(), row([[4, 5], [4, 6]], label=0)])
    assert batch.tokens.ravel()[batch.decided].tolist() == [9, 9, 5, 6]
    assert batch.labels.tolist() == [2, 2, 0, 0]
    assert batch.weights.tolist() == [1.5, 1.5, 1.0, 1.0]


def test_padding_belongs_to_no_tail() -> None:
    batch = pack([some_row(), row([[4, 5], [4, 6]], label=0)])
    assert batch.tails[1].tolist() == [0, 1, 2, -1, -1, -1, -1, -1]


@pytest.mark.parametrize("size", [1, 4, 7])
def test_every_row_comes_once_in_batches_of_the_size(size: int) -> None:
    rows = [row([[at, *range(at % 5), 1], [at, *range(at % 5), 2]], label=0) for at in range(50)]
    groups = list(batches(rows, size=size, seed=1))
    assert sorted(each.shared[0] for group in groups for each in group) == list(range(50))
    assert max(map(len, groups)) == size


def test_the_order_of_batches_is_given_by_the_seed() -> None:
    rows = [row([[at, 1], [at, 2]], label=0) for at in range(200)]
    orders = [list(batches(rows, size=4, seed=seed)) for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]


def test_rows_of_like_length_stand_together() -> None:
    chance = np.random.default_rng(0)
    lengths = chance.integers(5, 60, size=64)
    rows = [row([[0] * length + [1], [0] * length + [2]], label=0) for length in lengths]
    padded = sum(pack(group).tokens.size for group in batches(rows, size=4, seed=0))
    unsorted = sum(pack(rows[at : at + 4]).tokens.size for at in range(0, 64, 4))
    assert padded < 0.85 * unsorted
