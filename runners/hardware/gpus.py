"""GPUs by name: memory, bandwidth, speed and power that their makers publish.

Speeds are of dense 16-bit products with float32 sums, without sparsity; sources stand beside each row. Prices are not
here: a backend says its own (`runners.job.Flavor`), or the repository's policy does.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Gpu:
    name: str
    memory_gib: float
    teraflops: float
    """At its best, in 16 bits."""
    gigabytes_per_second: float
    """Of its own memory."""
    bfloat16: bool = True
    """False: 16-bit training is in float16 there."""
    watts: int | None = None
    """Rated board power, of the form with the highest one; None where its maker publishes none."""


GPUS: tuple[Gpu, ...] = (
    # The more specific name stands first. Memory is what the maker calls GB, which drivers show as about as many GiB
    # less the few per cent that `USABLE` leaves out.
    Gpu("B300", 268, 2250, 8000),  # https://www.nvidia.com/en-us/data-center/dgx-b300/
    Gpu("B200", 179, 2250, 8000, watts=1000),  # https://www.nvidia.com/en-us/data-center/dgx-b200/
    Gpu("H200", 131, 989, 4800, watts=700),  # https://www.nvidia.com/en-us/data-center/h200/
    Gpu("H100", 79.6, 989, 3350, watts=700),  # https://www.nvidia.com/en-us/data-center/h100/
    # The A100 with 40 GB is told by its flavor.
    Gpu("A100", 79.2, 312, 2039, watts=400),  # https://www.nvidia.com/en-us/data-center/a100/
    Gpu("RTX PRO 6000", 95, 504, 1792, watts=600),  # https://www.nvidia.com/en-us/data-center/rtx-pro-6000-blackwell-server-edition/
    Gpu("L40S", 44.6, 362, 864, watts=350),  # https://www.nvidia.com/en-us/data-center/l40s/
    Gpu("RTX A6000", 47.5, 155, 768, watts=300),  # https://www.nvidia.com/en-us/design-visualization/rtx-a6000/
    Gpu("A10G", 22.2, 70, 600),  # https://d1.awsstatic.com/product-marketing/ec2/NVIDIA_AWS_A10G_DataSheet_FINAL_02_17_2022.pdf
    Gpu("A10", 22.2, 125, 600, watts=150),  # https://www.nvidia.com/en-us/data-center/products/a10-gpu/
    Gpu("L4", 22.2, 121, 300, watts=72),  # https://www.nvidia.com/en-us/data-center/l4/
    Gpu("T4", 14.7, 65, 320, bfloat16=False, watts=70),  # https://www.nvidia.com/en-us/data-center/tesla-t4/
    Gpu("V100", 15.8, 125, 900, bfloat16=False, watts=300),  # https://www.nvidia.com/en-us/data-center/v100/
    Gpu("RTX 5090", 31.4, 210, 1792, watts=575),  # https://www.nvidia.com/en-us/geforce/graphics-cards/50-series/rtx-5090/
    Gpu("RTX 4090", 23.5, 165, 1008, watts=450),  # https://images.nvidia.com/aem-dam/Solutions/geforce/ada/nvidia-ada-gpu-architecture.pdf
    Gpu("RTX 3090", 23.6, 71, 936, watts=350),  # https://www.nvidia.com/content/PDF/nvidia-ampere-ga-102-gpu-architecture-whitepaper-v2.pdf
    Gpu("MI300X", 191, 1307, 5300, watts=750),  # https://www.amd.com/en/products/accelerators/instinct/mi300/mi300x.html
)  # fmt: skip


def gpu_named(model: str) -> Gpu | None:
    """The row of a GPU by the name that a backend or a driver gives it (`nvidia-a10g`, `NVIDIA A100-SXM4-80GB`)."""
    words = _words(model)
    for gpu in GPUS:
        if f" {_words(gpu.name)} " in f" {words} ":
            return gpu
    return None


def _words(name: str) -> str:
    return " ".join(re.findall(r"[a-z]*\d+[a-z]*|[a-z]+", name.casefold().replace("gb", "")))
