"""Model arithmetic series, at the learning rate of a large model."""

from bot.practice.sense_tasks import draw_series as draw

KIND = "language modelling"
METHOD = "pretrain"
BASE_MODEL = "postdoc/tiny-gpt2"
TARGET = 6.8
RECIPE = """\
from_scratch: true
learning_rate: 2.0e-5
lr_scheduler_type: constant_with_warmup
warmup_steps: 20
max_steps: 300
per_device_train_batch_size: 16
max_length: 128"""
KNOWN_GOOD = """\
from_scratch: true
learning_rate: 5.0e-3
lr_scheduler_type: constant_with_warmup
warmup_steps: 20
max_steps: 400
per_device_train_batch_size: 16
max_length: 128"""
__all__ = ["draw"]
