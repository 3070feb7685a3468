"""Model a register whose sums add up."""

from bot.practice.sense_tasks import draw_records as draw

KIND = "language modelling"
METHOD = "pretrain"
BASE_MODEL = "postdoc/tiny-gpt2"
METRIC = "bits_per_byte"
TARGET = 0.6
KNOWN_GOOD = """\
learning_rate: 3.0e-3
lr_scheduler_type: linear
warmup_steps: 0.1
max_steps: 250
per_device_train_batch_size: 32
max_length: 128"""
__all__ = ["draw"]
