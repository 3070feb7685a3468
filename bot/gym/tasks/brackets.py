"""Model balanced brackets."""

from bot.practice.sense_tasks import draw_brackets as draw

KIND = "language modelling"
METHOD = "pretrain"
BASE_MODEL = "postdoc/tiny-gpt2"
METRIC = "bits_per_byte"
TARGET = 2.8
KNOWN_GOOD = """\
from_scratch: true
learning_rate: 5.0e-3
lr_scheduler_type: constant_with_warmup
warmup_steps: 20
max_steps: 250
per_device_train_batch_size: 16
max_length: 128"""
__all__ = ["draw"]
