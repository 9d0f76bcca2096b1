"""What the makers say of their chips: the figures behind utilisation and bounds on it."""

from dataclasses import dataclass
from typing import Any

GIB = 2**30


@dataclass(frozen=True)
class Chip:
    """One accelerator, as JAX counts devices.

    Attributes:
      name: as in `v5p:4x4x4`.
      flops: of bfloat16 products a second, at most.
      hbm: bytes of memory that a program may use: what libtpu's compiler leaves of the nominal size.
      hbm_bandwidth: bytes a second.
      ring_bandwidth: bytes a second that a device takes in along one ring of the interconnect, from both sides.
      network_bandwidth: bytes a second of its share of the data-centre network, between slices (ours: an estimate).
    """

    name: str
    flops: float
    hbm: float
    hbm_bandwidth: float
    ring_bandwidth: float = 0.0
    network_bandwidth: float = 0.0


# cloud.google.com/tpu/docs, pages v4, v5e, v5p, v6e (they give all links, a ring takes two); nvidia.com: SXM, dense.
CHIPS: dict[str, Chip] = {
    "TPU v4": Chip("v4", 275e12, 31.25 * GIB, 1.228e12, 100e9, 6.25e9),
    "TPU v5 lite": Chip("v5e", 197e12, 15.75 * GIB, 0.819e12, 100e9, 3.125e9),
    "TPU v5": Chip("v5p", 459e12, 95.73 * GIB, 2.765e12, 200e9, 6.25e9),
    "TPU v6 lite": Chip("v6e", 918e12, 31.25 * GIB, 1.64e12, 224e9, 12.5e9),
    "NVIDIA H100 80GB HBM3": Chip("h100", 989e12, 79.1 * GIB, 3.35e12),
    "NVIDIA H200": Chip("h200", 989e12, 139.7 * GIB, 4.8e12),
}


def chip_of(device: Any) -> Chip | None:
    """The chip that a device is; None where its figures are not known, as of CPUs."""
    return CHIPS.get(device.device_kind)
