"""Tell circles, crosses, squares and triangles apart."""

from bot.practice.sense_tasks import draw_shapes as draw

KIND = "vision"
METHOD = "vision"
BASE_MODEL = "postdoc/tiny-resnet"
TARGET = 0.9
ROWS = 1000
DEV, SEALED = 150, 200
KNOWN_GOOD = """\
learning_rate: 5.0e-3
lr_scheduler_type: cosine
warmup_steps: 0.1
max_steps: 250
per_device_train_batch_size: 32"""
__all__ = ["draw"]
