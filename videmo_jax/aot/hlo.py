"""Collectives of a compiled program, read from XLA's text: what kind, how often, how many bytes, among which devices.

Read is the text that the TPU compiler writes after code generation: `Compiled.as_text` fails on asynchronous
collectives of some slices, and earlier passes do not say what the program really does.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from videmo_jax.files.errors import UserError

_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "f32": 4, "s32": 4, "u32": 4, "f64": 8}
_SHAPE = re.compile(r"\b(pred|bf16|f16|f32|f64|[su](?:8|16|32))\[([\d,]*)\]")
_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\) -> .*\{$")
_KINDS = "all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute"
_COLLECTIVE = re.compile(rf"^\s*(?:ROOT )?%?([\w.\-]+) = (.*?) ({_KINDS})(-start)?\(")
_CALLED = re.compile(r"\b(?:calls|to_apply|body|branch_computations|called_computations)=\{?((?:%[\w.\-]+(?:, )?)+)\}?")
_WHILE = re.compile(r" while\(.*\bcondition=%([\w.\-]+), body=%([\w.\-]+)")
_LIMIT = re.compile(r"^\s*%?([\w.\-]+) = s32\[\]\S* constant\((\d+)\)")
_CHAIN = re.compile(r'frontend_attributes=\{[^}]*chain_id="(\d+)"')
# Device numbers in another order than the mesh's stand behind it: libtpu 0.0.42.
_MESH = re.compile(r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\(\[([\d,]+)\](?:T\(([\d,]+)\))?\))? \{([^}]*)\}")
_GOES_ON = re.compile(r" async-(?:update|done)\(")  # they name what async-start has begun


class HloError(UserError):
    """A program's text that is not what this module reads."""


@dataclass(frozen=True)
class Collective:
    """One instruction.

    Attributes:
      kind: all-gather, reduce-scatter, all-reduce, all-to-all or collective-permute.
      shape: of the largest array in it, such as «bf16[4,56,18944]».
      moved: bytes that a device takes in each time, for the best algorithm on a ring.
      times: how often it runs in one call of the program.
      devices: numbers of the devices of the first group.
      where: the operation of the model that it comes from.
    """

    kind: str
    shape: str
    moved: float
    times: int
    devices: tuple[int, ...]
    where: str

    @property
    def total(self) -> float:
        """Bytes that a device takes in during one call of the program."""
        return self.moved * self.times


def collectives(text: str, *, open_trips: int | None = None) -> list[Collective]:
    """The collectives of a program, with the trips of the loops around them.

    Args:
      text: of the program.
      open_trips: of loops that end when their data say so; None: there are none.

    Raises:
      HloError: a loop's trips cannot be read.
    """
    computations = _computations(text)
    entry = re.search(r"^ENTRY %?([\w.\-]+) ", text, re.MULTILINE)
    if entry is None:
        raise HloError("the program's text has no ENTRY")
    return list(_walk(entry[1], 1, computations, open_trips))


def _computations(text: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        if match := _COMPUTATION.match(line):
            lines = found.setdefault(match[1], [])
        elif line == "}":
            lines = []
        else:
            lines.append(line)
    return found


def _walk(
    name: str,
    times: int,
    computations: dict[str, list[str]],
    open_trips: int | None,
    chains: set[str] | None = None,
) -> Iterator[Collective]:
    """The collectives below a computation; `chains` are those of the loop around it that were met."""
    chains = set() if chains is None else chains
    # The compiler writes a reduce-scatter as a fusion of that name around an all-reduce of the whole.
    scatter = name.startswith("all-reduce-scatter")
    for line in computations[name]:
        if match := _COLLECTIVE.match(line):
            # What runs beside several products stands in the fusion of each of them, under one number.
            chain = _CHAIN.search(line)
            if chain is None or chain[1] not in chains:
                yield _collective(match, line, times, scatter=scatter)
            if chain is not None:
                chains.add(chain[1])
        elif match := _WHILE.search(line):
            trips = _trips(computations[match[1]], match[1], open_trips)
            yield from _walk(match[2], times * trips, computations, open_trips)
        elif _GOES_ON.search(line):
            continue
        elif match := _CALLED.search(line):
            for called in re.findall(r"%([\w.\-]+)", match[1]):
                if called in computations:
                    yield from _walk(called, times, computations, open_trips, chains)


def _trips(condition: list[str], name: str, open_trips: int | None) -> int:
    """How often a loop runs that counts from 0: its condition compares with a number, and that is all of it."""
    limits = {match[1]: int(match[2]) for line in condition if (match := _LIMIT.match(line))}
    (root,) = [line for line in condition if line.lstrip().startswith("ROOT ")]
    compared = [limits[operand] for operand in re.findall(r"%([\w.\-]+)", _operands(root)) if operand in limits]
    if len(compared) == 1:
        return compared[0]
    if open_trips is None:
        raise HloError(f"loop condition {name}: expected one limit to count to, found {compared}")
    return open_trips


def _operands(line: str) -> str:
    """What stands in an instruction's parentheses."""
    return re.sub(r"^.*? [\w\-]+\((.*?)\)(, .*)?$", r"\1", line)


def _collective(match: re.Match[str], line: str, times: int, *, scatter: bool) -> Collective:
    kind, started = match[3], bool(match[4])
    shapes = [
        (math.prod(map(int, filter(None, dims.split(",")))) * _BYTES[t], f"{t}[{dims}]")
        for t, dims in _SHAPE.findall(match[2])
    ]
    largest, shape = max(shapes)
    # A started collective names its operands beside its results; of all others every array counts.
    whole = largest if started else sum(size for size, _ in shapes)
    group = _group(line)
    share = (len(group) - 1) / len(group)
    if kind == "reduce-scatter":
        whole *= len(group)
    if kind == "all-reduce" and scatter:
        kind = "reduce-scatter"
    moved = {"all-reduce": 2 * share, "collective-permute": 1.0}.get(kind, share) * whole
    where = re.search(r'op_name="([^"]*)"', line)
    return Collective(kind, shape, moved, times, group, where[1] if where else "")


def _group(line: str) -> tuple[int, ...]:
    """The first group of devices, in any of the notations."""
    if match := re.search(r"(?:replica_groups|source_target_pairs)=\{\{([\d,]+)\}", line):
        return tuple(map(int, match[1].split(",")))
    if match := re.search(r"replica_groups=\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", line):
        return tuple(_numbered(match[3], match[4]).reshape(int(match[1]), int(match[2]))[0].tolist())
    if match := _MESH.search(line):
        axes = re.findall(r"'(\w+)'=(\d+)", match[1])
        sizes = [int(size) for _, size in axes]
        numbers = _numbered(match[2] or str(math.prod(sizes)), match[3]).reshape(sizes)
        named = re.findall(r"'(\w+)'", match[4])
        return tuple(numbers[tuple(slice(None) if axis in named else 0 for axis, _ in axes)].reshape(-1).tolist())
    raise HloError(f"a collective without groups: {line.strip()[:120]}")


def _numbered(sizes: str, order: str | None) -> np.ndarray:
    """The numbers of the devices as an array of these sizes, its axes then put into this order."""
    shape = list(map(int, sizes.split(",")))
    numbers = np.arange(math.prod(shape)).reshape(shape)
    return numbers.transpose(list(map(int, order.split(",")))) if order else numbers
