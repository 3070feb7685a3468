"""Model the sentences of a small grammar."""

from bot.practice.sense_tasks import draw_grammar as draw

KIND = "language modelling"
METHOD = "pretrain"
BASE_MODEL = "postdoc/tiny-gpt2"
TARGET = 2.4
KNOWN_GOOD = """\
from_scratch: true
learning_rate: 5.0e-3
lr_scheduler_type: constant_with_warmup
warmup_steps: 20
max_steps: 250
per_device_train_batch_size: 16
max_length: 128"""
__all__ = ["draw"]
