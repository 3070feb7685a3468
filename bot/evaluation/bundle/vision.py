"""Engine `vision`: an image classifier gives each image a label and its probability.

Images are read by Pillow and prepared by the model's own image processor, without torchvision where it is missing.
"""

from __future__ import annotations

import argparse
import io
from typing import Any

from scores import head_for, judged, label_summary, labels_of, media_bytes, refused

LIBRARIES = ("torch", "transformers", "pillow")


def run(arguments: argparse.Namespace, benchmark: dict[str, Any], items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    import torch
    from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageClassification

    gpu = torch.cuda.is_available()
    torch.manual_seed(0)  # a head that the model lacks is drawn
    head = head_for(AutoConfig.from_pretrained(arguments.model), labels_of(benchmark, items))
    # Pillow's arithmetic everywhere: a machine with torchvision would resize a little differently.
    processor = AutoImageProcessor.from_pretrained(arguments.model, backend="pil")
    dtype = torch.bfloat16 if gpu else torch.float32
    model = AutoModelForImageClassification.from_pretrained(arguments.model, dtype=dtype, **head)
    model = model.to("cuda" if gpu else "cpu").eval()
    answers: list[dict[str, float]] = []
    names = [str(model.config.id2label[n]) for n in range(model.config.num_labels)]
    for start in range(0, len(items), arguments.batch_size):
        images = [picture(item) for item in items[start : start + arguments.batch_size]]
        pixels = processor(images, return_tensors="pt")["pixel_values"].to(model.device, dtype)
        with torch.inference_mode():
            shares = model(pixel_values=pixels).logits.float().softmax(-1)
        answers += [dict(zip(names, row, strict=True)) for row in shares.tolist()]
        print(f"answered {len(answers)}", flush=True)
    samples: list[dict[str, Any]] = judged(benchmark, items, answers, None)
    return samples


def picture(item: dict[str, Any]) -> Any:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(media_bytes(item, "image"))) as image:
            return image.convert("RGB")
    except (UnidentifiedImageError, OSError):
        raise refused(
            f"item {item.get('id')}: image is neither PNG, JPEG nor another format that Pillow reads"
        ) from None


def summary(samples: list[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = label_summary(samples)
    return found
