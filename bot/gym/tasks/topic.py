"""Say what a text is about, though most rows are of one topic."""

from bot.practice.sense_tasks import draw_topic as draw

KIND = "classification"
METHOD = "classify"
BASE_MODEL = "postdoc/tiny-bert"
METRIC = "macro_f1"
TARGET = 0.85
KNOWN_GOOD = """\
learning_rate: 1.0e-3
lr_scheduler_type: linear
warmup_steps: 0.1
max_steps: 500
per_device_train_batch_size: 32"""
__all__ = ["draw"]


def spoil(rows, rng):
    common = rows[0]["label"]
    return [row for row in rows if row["label"] == common or rng.random() < 0.3]
