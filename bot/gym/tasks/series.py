"""Model arithmetic series, at the learning rate of a large model."""

from bot.practice.sense_tasks import draw_series as draw

KIND = "language modelling"
METHOD = "pretrain"
BASE_MODEL = "postdoc/tiny-gpt2"
TARGET = 3.2
RECIPE = """\
learning_rate: 2.0e-5
lr_scheduler_type: linear
warmup_steps: 0.1
max_steps: 200
per_device_train_batch_size: 32
max_length: 128"""
KNOWN_GOOD = """\
learning_rate: 3.0e-3
lr_scheduler_type: linear
warmup_steps: 0.1
max_steps: 250
per_device_train_batch_size: 32
max_length: 128"""
__all__ = ["draw"]
