"""Builds the tiny models other than tiny-qwen3: real architectures of transformers, small enough to train in seconds.

    python -m bot.practice.tiny_models [NAME ...] [--seed 0] [--out DIR]

    postdoc/tiny-bert      BERT for texts, a word list of the practice tasks, letters for every other word
    postdoc/tiny-resnet    ResNet for images of 16 by 16 pixels
    postdoc/tiny-vit       Vision Transformer for the same images
    postdoc/tiny-whisper   Whisper for one second at 16,000 samples, 24 mel bands; bytes, and the practice words
    postdoc/tiny-gpt2      GPT-2 over bytes, for language modelling from scratch

Their weights are drawn from a seed and not pretrained, which takes a second each; they lie in the user's cache like
tiny-qwen3, and appear whole (one rename) or not at all.

Not covered: being useful for anything but practice.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bot.domain.goal import digest_of
from bot.practice import sense_tasks
from bot.practice.tiny_base import built_once, cache_folder

Parts = tuple[Any, Any]
"""A model and its tokenizer or processor."""


# --- Text classification --------------------------------------------------------------------------------------------


def vocabulary() -> list[str]:
    """Words of the practice tasks, then every letter, digit and mark, at the beginning of a word and inside it."""
    t = sense_tasks
    words = {*t.NEUTRAL, *t.PRAISE, *t.BLAME, *t.COLOURS, *t.DIGIT_WORDS, *t.VERBS, *t.THINGS, *t.ANIMALS}
    words |= {*t.ADJECTIVES, "not", "ping", *(word for topic in t.TOPICS.values() for word in topic)}
    characters = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    return [*special, *characters, *(f"##{one}" for one in characters), *sorted(words - set(characters))]


def tiny_bert(seed: int) -> Parts:
    import torch
    from transformers import BertConfig, BertModel, BertTokenizer

    tokenizer = BertTokenizer(vocab={word: n for n, word in enumerate(vocabulary())}, do_lower_case=True)
    tokenizer.model_max_length = 128
    torch.manual_seed(seed)
    shape = BertConfig(
        vocab_size=len(vocabulary()),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=128,
    )
    return BertModel(shape), tokenizer


# --- Images ---------------------------------------------------------------------------------------------------------


def _image_processor(side: int) -> Any:
    from transformers import ViTImageProcessorPil

    half = [0.5, 0.5, 0.5]
    return ViTImageProcessorPil(size={"height": side, "width": side}, image_mean=half, image_std=half)


def tiny_resnet(seed: int) -> Parts:
    import torch
    from transformers import ResNetConfig, ResNetModel

    torch.manual_seed(seed)
    shape = ResNetConfig(embedding_size=16, hidden_sizes=[32, 64], depths=[1, 1], layer_type="basic")
    # Twice the edge: a ResNet's stem divides it by four before the first stage.
    return ResNetModel(shape), _image_processor(2 * sense_tasks.SIDE)


def tiny_vit(seed: int) -> Parts:
    import torch
    from transformers import ViTConfig, ViTModel

    torch.manual_seed(seed)
    shape = ViTConfig(
        image_size=sense_tasks.SIDE,
        patch_size=4,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
    )
    return ViTModel(shape, add_pooling_layer=False), _image_processor(sense_tasks.SIDE)


# --- Speech ---------------------------------------------------------------------------------------------------------

WHISPER_SPECIALS = (
    "<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|translate|>", "<|transcribe|>", "<|startoflm|>",
    "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>",
)  # fmt: skip


def word_merges(words: list[str]) -> list[tuple[str, str]]:
    """Pairs for a byte-level BPE that put the practice words together, at the beginning of a text and after a space."""
    pairs: dict[tuple[str, str], None] = {}
    for word in words:
        for spelled in (word, f"\u0120{word}"):  # how byte-level BPE writes a space
            for end in range(1, len(spelled)):
                pairs[spelled[:end], spelled[end]] = None
    return list(pairs)


def tiny_whisper(seed: int) -> Parts:
    import torch
    from tokenizers import pre_tokenizers
    from transformers import (
        GenerationConfig,
        WhisperConfig,
        WhisperFeatureExtractor,
        WhisperForConditionalGeneration,
        WhisperProcessor,
        WhisperTokenizer,
    )

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = word_merges([*sense_tasks.DIGIT_WORDS, *sense_tasks.VERBS, *sense_tasks.THINGS])
    tokens = [*alphabet, *dict.fromkeys("".join(pair) for pair in merges), *WHISPER_SPECIALS]
    tokenizer = WhisperTokenizer(
        vocab={token: n for n, token in enumerate(tokens)},
        merges=merges,
        additional_special_tokens=list(WHISPER_SPECIALS[1:]),
        unk_token=WHISPER_SPECIALS[0],
        bos_token=WHISPER_SPECIALS[0],
        eos_token=WHISPER_SPECIALS[0],
        pad_token=WHISPER_SPECIALS[0],
    )
    end, start = (tokenizer.convert_tokens_to_ids(WHISPER_SPECIALS[n]) for n in (0, 1))
    extractor = WhisperFeatureExtractor(feature_size=24, chunk_length=1)
    torch.manual_seed(seed)
    shape = WhisperConfig(
        vocab_size=len(tokenizer),
        num_mel_bins=24,
        d_model=64,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=128,
        decoder_ffn_dim=128,
        max_source_positions=extractor.nb_max_frames // 2,
        max_target_positions=48,
        pad_token_id=end,
        bos_token_id=end,
        eos_token_id=end,
        decoder_start_token_id=start,
        begin_suppress_tokens=None,
        suppress_tokens=None,
    )
    model = WhisperForConditionalGeneration(shape)
    model.generation_config = GenerationConfig(
        pad_token_id=end, bos_token_id=end, eos_token_id=end, decoder_start_token_id=start, max_length=48
    )
    return model, WhisperProcessor(extractor, tokenizer)


# --- Language modelling ---------------------------------------------------------------------------------------------


def tiny_gpt2(seed: int) -> Parts:
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    end = "<|endoftext|>"
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={token: n for n, token in enumerate((end, *alphabet))}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=end, eos_token=end, pad_token=end, clean_up_tokenization_spaces=False
    )
    torch.manual_seed(seed)
    shape = GPT2Config(
        vocab_size=len(tokenizer), n_positions=128, n_embd=64, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=0,
        embd_pdrop=0.0, attn_pdrop=0.0, resid_pdrop=0.0, loss_type="ForCausalLM",
    )  # fmt: skip
    return GPT2LMHeadModel(shape), tokenizer


# --- Building -------------------------------------------------------------------------------------------------------

MAKERS: dict[str, tuple[Callable[[int], Parts], str]] = {
    "postdoc/tiny-bert": (tiny_bert, "text-classification"),
    "postdoc/tiny-resnet": (tiny_resnet, "image-classification"),
    "postdoc/tiny-vit": (tiny_vit, "image-classification"),
    "postdoc/tiny-whisper": (tiny_whisper, "automatic-speech-recognition"),
    "postdoc/tiny-gpt2": (tiny_gpt2, "text-generation"),
}


def cached_path(name: str, seed: int = 0) -> Path:
    """Where the model lies once built; computed without importing torch. KeyError for an unknown name."""
    MAKERS[name]
    # This file's text, so that other models than these never pass for them.
    parts = [name, seed, vocabulary(), Path(__file__).read_text(encoding="utf-8")]
    return cache_folder() / "models" / name / digest_of(parts)[:12]


def build(name: str, seed: int = 0, path: Path | None = None) -> Path:
    """The model's folder, built unless it is there already."""
    return built_once(path or cached_path(name, seed), lambda folder: _build_into(folder, name, seed))


def _build_into(folder: Path, name: str, seed: int) -> None:
    maker, task = MAKERS[name]
    model, reader = maker(seed)
    model.save_pretrained(folder)
    reader.save_pretrained(folder)
    card = f"""---
license: apache-2.0
library_name: transformers
pipeline_tag: {task}
tags:
- tiny
- practice
---

# {name}

{type(model).__name__} of transformers with {model.num_parameters():,} weights drawn from the seed {seed} and never
trained. It exists to make training observable in seconds on one CPU core; it is not useful for anything else.
"""
    (folder / "README.md").write_text(card, encoding="utf-8")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bot.practice.tiny_models", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(MAKERS)} (default: all of them)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="folder to build one model into (default: the user's cache folder)")
    options = parser.parse_args(arguments)
    names = options.names or list(MAKERS)
    if unknown := [name for name in names if name not in MAKERS]:
        print(f"there is no tiny model {unknown[0]}; write one of {', '.join(MAKERS)}", file=sys.stderr)
        return 2
    if options.out and len(names) != 1:
        print("--out takes one model: name it", file=sys.stderr)
        return 2
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    print(json.dumps({name: str(build(name, options.seed, options.out)) for name in names}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
