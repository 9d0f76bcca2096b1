"""Which Hugging Face tensor is which slice of which parameter: read off the parameters themselves."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
from einops import rearrange
from flax import nnx

from videmo_jax.model.config import ModelConfig
from videmo_jax.model.videmo import abstract_model

Path = tuple[str | int, ...]


@dataclasses.dataclass(frozen=True)
class HfTensor:
    """One tensor of a Hugging Face file and its place in our tree.

    `shape` is the file's, `layer` the index along our stacked axis or None, `layout` the einops pattern from the
    file's tensor to ours, `sizes` the length of each axis that the pattern names.
    """

    name: str
    path: Path
    layer: int | None
    shape: tuple[int, ...]
    layout: str
    sizes: dict[str, int]

    @property
    def plain(self) -> bool:
        """Whether it is a whole parameter of ours in the same layout, so that its rows are rows of ours."""
        theirs, ours = self.layout.split(" -> ")
        return self.layer is None and theirs == ours

    def to_ours(self, value: Any) -> Any:
        """The file's tensor in our layout (of one layer)."""
        return rearrange(value, self.layout, **self.sizes)

    def to_hf(self, value: Any) -> Any:
        """Our array (of one layer) in the file's layout."""
        theirs, ours = self.layout.split(" -> ")
        return rearrange(value, f"{ours} -> {theirs}", **self.sizes)


def parameters(config: ModelConfig) -> nnx.State:
    """The abstract parameters of a model that Hugging Face files hold (not adapters), with their metadata."""
    return nnx.state(abstract_model(config.plain), nnx.Param)


def hf_tensors(config: ModelConfig) -> Iterator[HfTensor]:
    """All tensors of the model under their hub names (`visual.*`, `model.*`, `lm_head.weight`), by layer."""
    for path, param in nnx.to_flat_state(parameters(config)):
        name, layout = param.get_metadata("hf"), param.get_metadata("hf_layout")
        stacked = "{layer}" in name
        ours = layout.split(" -> ")[1].split()
        sizes = dict(zip(ours, param.shape[stacked:], strict=True))
        shape = tuple(int(np.prod([sizes[a] for a in group])) for group in _groups(layout.split(" -> ")[0]))
        for layer in range(param.shape[0]) if stacked else (None,):
            yield HfTensor(name.format(layer=layer), path, layer, shape, layout, sizes)


def hub_name(name: str) -> str:
    """The hub's name of a tensor that may bear the in-memory name of transformers >= 4.52."""
    for inner, hub in (("model.visual.", "visual."), ("model.language_model.", "model.")):
        if name.startswith(inner):
            return hub + name.removeprefix(inner)
    return name


def _groups(pattern: str) -> list[list[str]]:
    """The axes of one side of an einops pattern, those in brackets together."""
    groups, open_group = [], None
    for word in pattern.replace("(", " ( ").replace(")", " ) ").split():
        if word == "(":
            open_group = []
        elif word == ")":
            groups.append(open_group)
            open_group = None
        elif open_group is not None:
            open_group.append(word)
        else:
            groups.append([word])
    return groups
