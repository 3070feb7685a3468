"""Tell praise from blame where a word may turn it round, with BERT's published rate."""

from bot.practice.sense_tasks import draw_negation as draw

KIND = "classification"
METHOD = "classify"
BASE_MODEL = "postdoc/tiny-bert"
TARGET = 0.9
# https://arxiv.org/abs/1810.04805, appendix A.3
RECIPE = """\
learning_rate: 2.0e-05
num_train_epochs: 3
per_device_train_batch_size: 32
warmup_steps: 0.1"""
KNOWN_GOOD = """\
learning_rate: 1.0e-3
lr_scheduler_type: linear
warmup_steps: 0.1
max_steps: 300
per_device_train_batch_size: 32"""
__all__ = ["draw"]
