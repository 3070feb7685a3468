"""Write down a spoken verb and thing."""

from bot.practice.sense_tasks import draw_orders as draw

KIND = "speech"
METHOD = "speech"
BASE_MODEL = "postdoc/tiny-whisper"
TARGET = 0.15
ROWS = 1100
DEV, SEALED = 100, 150
KNOWN_GOOD = """\
learning_rate: 4.0e-3
lr_scheduler_type: linear
warmup_steps: 0.1
max_steps: 500
per_device_train_batch_size: 32"""
__all__ = ["draw"]
