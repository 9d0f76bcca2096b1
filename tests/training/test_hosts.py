"""What hosts tell each other: as many texts as they like, in arrays of one shape."""

import numpy as np
import pytest

from videmo_jax.training.hosts import from_each_host, read_texts, write_texts


@pytest.mark.parametrize("lengths", [(), (3,), (0, 2, 0, 5), (1,) * 8])
def test_texts_come_back_from_an_array_with_more_room(lengths):
    rng = np.random.default_rng(len(lengths))
    texts = [rng.integers(0, 9, length).astype(np.int32) for length in lengths]
    for count, tokens in ((8, 8), (9, 31)):
        row = write_texts(texts, count, tokens)
        assert row.shape == (count + tokens,) and row.dtype == np.int32
        back = read_texts(row, count)
        assert [text.tolist() for text in back] == [text.tolist() for text in texts]


def test_one_host_hears_itself():
    (texts,) = from_each_host([np.arange(3, dtype=np.int32)])
    assert [text.tolist() for text in texts] == [[0, 1, 2]]
