"""What computes, going by what llama.cpp said while it loaded the model?"""

import re
from dataclasses import dataclass

_DEVICE = re.compile(r"using device \S+ \(([^)]+)\)")
_OFFLOADED = re.compile(r"offloaded (\d+)/(\d+) layers")


@dataclass(frozen=True, slots=True)
class Device:
    """`offloaded_layers` of the model lie on GPUs; `words` is one line for people."""

    offloaded_layers: int
    words: str


def device_of(log: str, *, threads: int) -> Device:
    """Read llama.cpp's log of one model load. Where it names no GPU, `threads` of the CPU compute."""
    offloaded = _OFFLOADED.findall(log)
    layers, whole = map(int, offloaded[-1]) if offloaded else (0, 0)
    if layers == 0:
        return Device(0, f"CPU, {threads} thread{'s' if threads != 1 else ''}")
    names = list(dict.fromkeys(_DEVICE.findall(log))) or ["GPU"]
    return Device(layers, f"{' and '.join(names)}, {layers} of {whole} layers")
