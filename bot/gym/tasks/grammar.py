"""Model the sentences of a small grammar."""

from bot.practice.sense_tasks import draw_grammar as draw

KIND = "language modelling"
METHOD = "pretrain"
BASE_MODEL = "postdoc/tiny-gpt2"
TARGET = 2.3
KNOWN_GOOD = """\
learning_rate: 3.0e-3
lr_scheduler_type: linear
warmup_steps: 0.1
max_steps: 200
per_device_train_batch_size: 32
max_length: 128
from_scratch: true"""
__all__ = ["draw"]
