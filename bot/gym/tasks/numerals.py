"""Read a digit."""

from bot.practice.sense_tasks import draw_numerals as draw

KIND = "vision"
METHOD = "vision"
BASE_MODEL = "postdoc/tiny-resnet"
TARGET = 0.85
ROWS = 1000
DEV, SEALED = 150, 200
KNOWN_GOOD = """\
learning_rate: 5.0e-3
lr_scheduler_type: cosine
warmup_steps: 0.1
max_steps: 300
per_device_train_batch_size: 32"""
__all__ = ["draw"]
