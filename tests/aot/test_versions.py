"""Which libtpu belongs to which jax."""

import pytest

from videmo_jax.aot.versions import Versions, installed


def test_what_is_installed():
    found = installed()
    assert found.jax and found.pinned.startswith("==")
    assert found.to_json()["libtpu_of_jax"] == found.pinned


@pytest.mark.parametrize(("libtpu", "said"), [("0.0.42.1", ""), ("0.0.52", "libtpu 0.0.52"), ("", "is missing")])
def test_another_libtpu_is_said(libtpu, said):
    warning = Versions("3.11.7", "0.10.2", libtpu, "==0.0.42.*").warning
    assert bool(warning) == bool(said) and said in warning
    assert not said or "libtpu==0.0.42.*" in warning
