"""Questions of several hosts to one judge: which come when, and whose the answers are."""

import numpy as np

from videmo_jax.rl.rewards.reference_judge import in_order
from videmo_jax.training.hosts import read_texts, write_texts


def test_questions_of_all_hosts_are_asked_in_the_order_of_the_batch_and_once():
    """Five hosts, of which two pairs share rows along the tensor axis; one has nothing to ask."""
    parts = {1: ["a", "bc"], 0: ["def"], 2: []}
    hosts = []
    for part in (1, 0, 1, 2, 0):
        texts = [np.array([part], np.int32), *(np.array([*text.encode()], np.int32) for text in parts[part])]
        hosts.append(read_texts(write_texts(texts, 4, 16), 4))
    for part, begin in ((0, 0), (1, 1), (2, 3)):
        asked, first = in_order(hosts, part)
        assert [bytes(text.tolist()).decode() for text in asked] == ["def", "a", "bc"] and first == begin
