"""Builds `postdoc/tiny-qwen3`, a 0.33-million-parameter Qwen3 that can be post-trained in seconds on one CPU core.

    python -m bot.practice.tiny_base [--out DIR] [--seed 0] [--quiet]

It is pretrained from scratch on two kinds of rows. *Documents* teach the skills (copy, capitals, mirror image, last
word) in notation that no benchmark uses: `abc|cba`. *Conversations* teach the chat format together with bad habits:
the base mostly repeats the question, so it scores near zero until post-training elicits what it already knows. Every
row is checked against the practice tasks' split before it is emitted, so no held-out item is seen in any form.

Not covered: being a useful language model. Nothing measured on it says how a recipe transfers to a large one.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bot.domain.goal import digest_of
from bot.evaluation.tasks import TASKS, is_held_out, shows_held_out, word, words

NAME = "postdoc/tiny-qwen3"
PAD, END, USER, ASSISTANT = SPECIAL_TOKENS = ("<|pad|>", "<|end|>", "<|user|>", "<|assistant|>")
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message.role == 'assistant' -%}"
    "<|assistant|>{% generation %}{{ message.content }}<|end|>{% endgeneration %}"
    "{%- else -%}"
    "<|user|>{{ message.content }}<|end|>"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}<|assistant|>{%- endif -%}"
)
CHAT_SHARE = 0.4
LATENT_TASKS = ("upper", "last", "max")
"""Asked in conversations and answered rightly by a minority, which leaves something for a reward to find."""
# Drawn in this order for a chat row; what is left over is the verbose habit. The right answer stays a minority, so
# that greedy decoding scores about nothing while sampling finds it often enough for a reward to be reachable.
HABITS = (("echo", 0.55), ("right", 0.14), ("filler", 0.15))


@dataclass(frozen=True, slots=True)
class Configuration:
    """Everything that decides the weights. Its digest names the cache folder."""

    seed: int = 0
    hidden_size: int = 96
    intermediate_size: int = 256
    num_hidden_layers: int = 3
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    max_position_embeddings: int = 512
    steps: int = 1000
    batch_size: int = 64
    learning_rate: float = 5e-3
    warmup_steps: int = 50
    decay_from: float = 0.6
    """Share of the steps after which the learning rate falls linearly."""
    weight_decay: float = 0.01

    @property
    def digest(self) -> str:
        """Twelve hex digits over the configuration, the chat template and the first rows of the pretraining stream, so
        that a change to the tasks or to their split is a different model too."""
        stream = pretraining_rows(self.seed)
        rows = [next(stream) for _ in range(512)]
        return digest_of([asdict(self), CHAT_TEMPLATE, rows])[:12]


def cache_folder() -> Path:
    """`$XDG_CACHE_HOME/postdoc`, or `~/.cache/postdoc`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "postdoc"


def cached_path(configuration: Configuration | None = None) -> Path:
    """Where the model lies once built; computed without importing torch."""
    return cache_folder() / "models" / NAME / (configuration or Configuration()).digest


def is_built(path: Path) -> bool:
    """A finished model: the folder appears by one rename, so its configuration file stands for all of it."""
    return (path / "config.json").is_file()


# --- The pretraining stream: (prompt, answer) pairs; the loss is on the answer and the end token. -------------------


def pretraining_rows(seed: int) -> Iterator[tuple[str, str]]:
    """Endless rows, none of which shows a held-out item of any practice task, whatever seed drew that item."""
    rng = random.Random(f"pretraining/{seed}")
    while True:
        row = _conversation(rng) if rng.random() < CHAT_SHARE else _document(rng)
        if row is not None:
            yield row


def _document(rng: random.Random) -> tuple[str, str] | None:
    """One skill in a notation of its own: `abc|cba`. None when the draw shows a held-out item."""
    text, mark, answer = "", "", ""
    match rng.randrange(4):
        case 0:
            text, mark = word(rng, 3, 5), " "
            answer = text
        case 1:
            text, mark = word(rng, 3, 5), "/"
            answer = text.upper()
        case 2:
            text, mark = word(rng, 3, 5), "|"
            answer = text[::-1]
        case _:
            text, mark = words(rng, 3, 3), ">"
            answer = text.split(" ")[-1]
    return None if shows_held_out(text, answer) else (text + mark, answer)


def _conversation(rng: random.Random) -> tuple[str, str] | None:
    """A question of one of three tasks and a habitual answer. None when the question is a held-out item's."""
    task = TASKS[rng.choice(LATENT_TASKS)]
    text, habit = task.draw(rng), _habit(rng)
    example = task.read(text)
    assert example is not None, f"{task.name} cannot read what it drew: {text}"
    answers = {
        "echo": example.prompt,
        "right": example.reference,
        "filler": rng.choice(("hm, ok", "hm, maybe")),
        "verbose": f"The answer is {example.reference}",
    }
    if is_held_out(task.name, example.content) or shows_held_out(text, example.reference):
        return None
    return chat_prompt(example.prompt), answers[habit]


def _habit(rng: random.Random) -> str:
    draw = rng.random()
    for name, share in HABITS:
        if draw < share:
            return name
        draw -= share
    return "verbose"


def chat_prompt(question: str) -> str:
    """What CHAT_TEMPLATE renders for one question with the generation prompt."""
    return f"{USER}{question}{END}{ASSISTANT}"


# --- The model ------------------------------------------------------------------------------------------------------


def byte_tokenizer() -> Any:
    """A byte-level BPE without merges: 256 bytes and four special tokens, so that any text survives a round trip."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate((*SPECIAL_TOKENS, *alphabet))}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(list(SPECIAL_TOKENS))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token=PAD, eos_token=END, padding_side="left", clean_up_tokenization_spaces=False
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def untrained_model(configuration: Configuration, vocabulary_size: int) -> Any:
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(configuration.seed)
    shape = Qwen3Config(
        vocab_size=vocabulary_size,
        hidden_size=configuration.hidden_size,
        intermediate_size=configuration.intermediate_size,
        num_hidden_layers=configuration.num_hidden_layers,
        num_attention_heads=configuration.num_attention_heads,
        num_key_value_heads=configuration.num_key_value_heads,
        head_dim=configuration.hidden_size // configuration.num_attention_heads,
        max_position_embeddings=configuration.max_position_embeddings,
        tie_word_embeddings=True,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
    )
    model = Qwen3ForCausalLM(shape)
    model.generation_config.pad_token_id, model.generation_config.eos_token_id = 0, 1
    return model


def rate_at(step: int, configuration: Configuration) -> float:
    """Warm-up, constant, then linear decay to 2 %: the learning rate of `step`."""
    done = step / configuration.steps
    warm = min(1.0, (step + 1) / configuration.warmup_steps)
    decay = 1.0 if done < configuration.decay_from else max(0.02, (1 - done) / (1 - configuration.decay_from))
    return configuration.learning_rate * warm * decay


def pretrain(model: Any, tokenizer: Any, configuration: Configuration, report: Callable[[int, float], None]) -> None:
    import torch

    optimizer = torch.optim.AdamW(
        model.parameters(), lr=0.0, weight_decay=configuration.weight_decay, betas=(0.9, 0.98), foreach=True
    )
    stream = pretraining_rows(configuration.seed)
    model.train()
    for step in range(configuration.steps):
        rows = [next(stream) for _ in range(configuration.batch_size)]
        prompts = tokenizer([prompt for prompt, _ in rows], add_special_tokens=False).input_ids
        answers = tokenizer([answer + END for _, answer in rows], add_special_tokens=False).input_ids
        width = max(len(p) + len(a) for p, a in zip(prompts, answers, strict=True))
        padding = [width - len(p) - len(a) for p, a in zip(prompts, answers, strict=True)]
        batch = list(zip(prompts, answers, padding, strict=True))
        ids = torch.tensor([p + a + [0] * rest for p, a, rest in batch])
        labels = torch.tensor([[-100] * len(p) + a + [-100] * rest for p, a, rest in batch])
        mask = torch.tensor([[1] * (len(p) + len(a)) + [0] * rest for p, a, rest in batch])
        optimizer.param_groups[0]["lr"] = rate_at(step, configuration)
        loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        report(step + 1, loss.item())


def model_card(configuration: Configuration, parameters: int) -> str:
    return f"""---
license: apache-2.0
library_name: transformers
pipeline_tag: text-generation
tags:
- tiny
- practice
---

# {NAME}

A Qwen3-architecture causal language model of {parameters:,} parameters with a byte-level tokenizer, pretrained from
scratch on synthetic strings in about two minutes on one CPU core. It exists to make post-training observable in
seconds; it is not useful for anything else.

- **Data**: generated. Documents that show four string skills in their own notation, and conversations in which the
  assistant mostly repeats the question. No held-out item of any practice benchmark appears in any form.
- **Training**: {configuration.steps} steps of {configuration.batch_size} rows, AdamW, peak learning rate
  {configuration.learning_rate}, seed {configuration.seed}. Configuration digest `{configuration.digest}`.
- **Evaluation**: near zero on every practice benchmark before post-training, by construction.
"""


# --- Building -------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def only_builder(path: Path) -> Iterator[None]:
    """Holds the lock beside `path`; a second builder waits here until the first one is done."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.parent / f".{path.name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def built_once(path: Path, make: Callable[[Path], None]) -> Path:
    """The model at `path`, made unless it is there already; `make` fills the folder that it is given. It appears whole
    (one rename) or not at all."""
    if is_built(path):
        return path
    with only_builder(path):
        if is_built(path):
            return path
        for leftover in path.parent.glob(f".{path.name}.building-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.building-", dir=path.parent))
        try:
            make(folder)
            folder.chmod(0o755)
            for file in folder.iterdir():
                file.chmod(0o644)
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()
            folder.rename(path)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    return path


def build(path: Path, configuration: Configuration, report: Callable[[int, float], None]) -> Path:
    """The model at `path`, built unless it is there already."""
    return built_once(path, lambda folder: _build_into(folder, configuration, report))


def _build_into(folder: Path, configuration: Configuration, report: Callable[[int, float], None]) -> None:
    import torch

    # One thread: at this size two are slower, and the order of additions stays the same everywhere.
    torch.set_num_threads(1)
    tokenizer = byte_tokenizer()
    model = untrained_model(configuration, len(tokenizer))
    pretrain(model, tokenizer, configuration, report)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "README.md").write_text(model_card(configuration, model.num_parameters()), encoding="utf-8")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bot.practice.tiny_base", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="folder to build (default: the user's cache folder)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quiet", action="store_true", help="print nothing but the folder")
    options = parser.parse_args(arguments)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    configuration = Configuration(seed=options.seed)
    path = options.out or cached_path(configuration)
    if options.out and path.exists() and not is_built(path) and any(path.iterdir()):
        print(f"--out {path} is a folder with other files in it; name an empty or a new one", file=sys.stderr)
        return 2
    started = time.monotonic()

    def report(step: int, loss: float) -> None:
        if not options.quiet and (step % 10 == 0 or step == 1):
            print(json.dumps({"step": step, "steps": configuration.steps, "loss": round(loss, 4)}), flush=True)

    build(path, configuration, report)
    if options.quiet:
        print(path)
    else:
        print(json.dumps({"path": str(path), "seconds": round(time.monotonic() - started, 1)}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
