import numpy as np
import pytest

from tests.conftest import golden
from videmo_jax.model.positions import VisionGrid, mrope_ids

GOLDEN = golden("mrope")


def segment(value):
    if isinstance(value, int):
        return value
    *grid, seconds = value if len(value) == 4 else [*value, None]
    return VisionGrid(*grid, seconds_per_grid=seconds)


@pytest.mark.parametrize("case", GOLDEN["cases"])
def test_ids_equal_the_golden_ones(case):
    expected = GOLDEN["cases"][case]
    ids = mrope_ids(
        [segment(value) for value in expected["segments"]],
        tokens_per_second=GOLDEN["tokens_per_second"],
        merge=GOLDEN["spatial_merge_size"],
    )
    np.testing.assert_array_equal(ids, [expected[axis] for axis in ("temporal", "height", "width")])
    assert ids.dtype == np.int32


def test_merged_tokens_of_a_grid():
    assert VisionGrid(6, 16, 30, 1.0).merged_tokens() == 720  # joyful.mp4 of golden/frames.json
