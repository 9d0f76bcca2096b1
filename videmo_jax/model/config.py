"""Sizes of the Qwen2.5-VL family, as frozen dataclasses that travel as JSON inside every checkpoint."""

import dataclasses
import difflib
from dataclasses import dataclass
from typing import Any

from videmo_jax.files.errors import UserError


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise UserError(f"model config: {message}")


@dataclass(frozen=True)
class VisionConfig:
    """The vision tower; `full_attention` lists the blocks that see a whole slab, the others see windows."""

    width: int = 1280
    layers: int = 32
    heads: int = 16
    mlp_width: int = 3420
    out_width: int = 2048
    full_attention: tuple[int, ...] = (7, 15, 23, 31)
    window: int = 112  # pixels
    patch: int = 14  # pixels
    temporal_patch: int = 2  # frames a slab
    merge: int = 2  # patches along each side of a merged token
    channels: int = 3
    tokens_per_second: int = 2  # temporal M-RoPE ids that one second takes
    rope_theta: float = 1e4
    norm_eps: float = 1e-6

    @property
    def head_width(self) -> int:
        """Width of one attention head."""
        return self.width // self.heads

    @property
    def patch_values(self) -> int:
        """Values of one patch: channels x frames x rows x columns."""
        return self.channels * self.temporal_patch * self.patch**2

    @property
    def window_patches(self) -> int:
        """Patches along one side of an attention window: whole merged tokens, as many as fit into `window`."""
        return self.window // self.patch // self.merge * self.merge

    def __post_init__(self) -> None:
        _require(self.width % self.heads == 0, f"vision.width {self.width} is no multiple of heads {self.heads}")
        _require(self.head_width % 4 == 0, f"vision head width {self.head_width} is no multiple of 4 (2-D rotary)")
        _require(self.window_patches > 0, f"vision.window {self.window} is smaller than one merged token")
        wrong = [block for block in self.full_attention if not 0 <= block < self.layers]
        _require(not wrong, f"vision.full_attention names blocks {wrong}, but there are {self.layers} layers")


@dataclass(frozen=True)
class TextConfig:
    """The decoder."""

    width: int = 2048
    layers: int = 36
    heads: int = 16
    kv_heads: int = 2
    head_width: int = 128
    mlp_width: int = 11008
    vocab: int = 151_936
    mrope_sections: tuple[int, int, int] = (16, 24, 24)  # rotary frequencies for time, height, width
    rope_theta: float = 1e6
    norm_eps: float = 1e-6
    tied: bool = True  # the output layer shares the embedding's weights
    max_positions: int = 128_000

    def __post_init__(self) -> None:
        _require(
            self.heads % self.kv_heads == 0,
            f"text.heads {self.heads} is no multiple of kv_heads {self.kv_heads}",
        )
        _require(
            2 * sum(self.mrope_sections) == self.head_width,
            f"text.mrope_sections {self.mrope_sections} must add up to half of head_width {self.head_width}",
        )


LORA_TARGETS = ("q", "k", "v", "o", "gate", "up", "down")


@dataclass(frozen=True)
class LoraConfig:
    """Adapters of low rank beside kernels of the decoder's layers, see model/lora.py."""

    rank: int = 0  # 0: none
    alpha: float = 16.0  # what they add is scaled by alpha / rank
    targets: tuple[str, ...] = LORA_TARGETS

    @property
    def scale(self) -> float:
        """The factor of what adapters add."""
        return self.alpha / self.rank

    def __post_init__(self) -> None:
        _require(self.rank >= 0, f"lora.rank is {self.rank}; it must be 0 (no adapters) or above")
        _require(self.alpha > 0, f"lora.alpha is {self.alpha}; it must be above 0")
        named = isinstance(self.targets, tuple) and {*self.targets} <= {*LORA_TARGETS}
        _require(
            named and 0 < len(self.targets) == len(set(self.targets)),
            f"lora.targets is {self.targets!r}; it must name some of {', '.join(LORA_TARGETS)}, each once",
        )


@dataclass(frozen=True)
class ModelConfig:
    """The whole model."""

    text: TextConfig = TextConfig()
    vision: VisionConfig = VisionConfig()
    lora: LoraConfig = LoraConfig()

    def __post_init__(self) -> None:
        _require(
            self.vision.out_width == self.text.width,
            f"vision.out_width {self.vision.out_width} differs from text.width {self.text.width}",
        )

    @property
    def plain(self) -> "ModelConfig":
        """The same model without adapters."""
        return dataclasses.replace(self, lora=LoraConfig())

    def to_json(self) -> dict[str, Any]:
        """A JSON object that `from_json` reads back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "ModelConfig":
        """Reads what `to_json` wrote; an unknown field is refused with the nearest known one."""
        _refuse_unknown(cls, values, "model")
        return cls(
            text=_read(TextConfig, values.get("text", {}), "model.text"),
            vision=_read(VisionConfig, values.get("vision", {}), "model.vision"),
            lora=_read(LoraConfig, values.get("lora", {}), "model.lora"),  # older checkpoints say nothing of it
        )


PRESETS: dict[str, ModelConfig] = {
    # A few million parameters, for laptops and tests.
    "tiny": ModelConfig(
        TextConfig(256, 4, 8, 2, 32, 768, 2560, (4, 6, 6), tied=True, max_positions=32_768),
        VisionConfig(128, 4, 4, 256, 256, full_attention=(1, 3)),
    ),
    "3b": ModelConfig(),
    "7b": ModelConfig(TextConfig(3584, 28, 28, 4, 128, 18944, 152_064, tied=False), VisionConfig(out_width=3584)),
    "32b": ModelConfig(
        TextConfig(5120, 64, 40, 8, 128, 27648, 152_064, tied=False),
        VisionConfig(mlp_width=3456, out_width=5120),
    ),
    "72b": ModelConfig(
        TextConfig(8192, 80, 64, 8, 128, 29568, 152_064, tied=False),
        VisionConfig(mlp_width=3456, out_width=8192),
    ),
}


def _refuse_unknown(cls: type, values: dict[str, Any], where: str) -> None:
    known = [field.name for field in dataclasses.fields(cls)]
    for name in values:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known)}"
            raise UserError(f"{where} has no field '{name}'; {hint}")


def _read(cls: type, values: dict[str, Any], where: str) -> Any:
    _refuse_unknown(cls, values, where)
    return cls(**{name: tuple(v) if isinstance(v, list) else v for name, v in values.items()})
