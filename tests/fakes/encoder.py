"""A model of embeddings that is small and yet tells wordings apart."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from bot.data.words import normalised_words

_MAKE = """
import json, sys, torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast
folder, words = sys.argv[1], json.loads(sys.argv[2])
table = {word: place for place, word in enumerate(["[PAD]", "[UNK]", *words])}
tokenizer = Tokenizer(models.WordLevel(table, unk_token="[UNK]"))
tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")
fast.save_pretrained(folder)
torch.manual_seed(0)
sizes = dict(hidden_size=64, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, initializer_range=1.0)
BertModel(BertConfig(vocab_size=len(table), **sizes)).save_pretrained(folder)
"""


def random_encoder(folder: Path, texts: Iterable[str]) -> Path:
    """An encoder with random weights that knows the words of `texts`: the mean of its states is near the mean of its
    words' random vectors. Returns `folder`."""
    words = sorted({word for text in texts for word in normalised_words(text)})
    command = [sys.executable, "-c", _MAKE, str(folder), json.dumps(words)]
    subprocess.run(command, check=True, capture_output=True)
    return folder
