"""Say whether a word is said an even or an odd number of times."""

from bot.practice.sense_tasks import draw_parity as draw

KIND = "classification"
METHOD = "classify"
BASE_MODEL = "postdoc/tiny-bert"
TARGET = 0.75
KNOWN_GOOD = """\
learning_rate: 1.0e-3
lr_scheduler_type: linear
warmup_steps: 0.1
max_steps: 400
per_device_train_batch_size: 32"""
__all__ = ["draw"]
