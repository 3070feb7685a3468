"""Tell praise from blame."""

from bot.practice.sense_tasks import draw_sentiment as draw

KIND = "classification"
METHOD = "classify"
BASE_MODEL = "postdoc/tiny-bert"
TARGET = 0.9
KNOWN_GOOD = """\
learning_rate: 1.0e-3
lr_scheduler_type: linear
warmup_steps: 0.1
max_steps: 150
per_device_train_batch_size: 32"""
__all__ = ["draw"]
