"""Name the colour of the larger of two blots."""

from bot.practice.sense_tasks import draw_colours as draw

KIND = "vision"
METHOD = "vision"
BASE_MODEL = "postdoc/tiny-vit"
TARGET = 0.85
ROWS = 1000
DEV, SEALED = 150, 200
KNOWN_GOOD = """\
learning_rate: 1.0e-3
lr_scheduler_type: linear
warmup_steps: 0.1
max_steps: 300
per_device_train_batch_size: 32"""
__all__ = ["draw"]
