"""What the environment says when it fails: the libraries' own words for each fault that has a name.

Wordings were read in torch 2.13, transformers 5.23, datasets 5.2, huggingface_hub 2.4, peft 0.21 and TRL 1.16; those of
CUDA, vLLM, FlashAttention and NCCL are as their users quote them, since no processor-only machine can produce them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from bot.domain.diagnosis import Symptom


@dataclass(frozen=True, slots=True)
class Signature:
    symptom: Symptom
    pattern: re.Pattern[str]
    subject: re.Pattern[str] | None = None
    """Finds in the text what the message is about; its first group that matched."""


def _any(*alternatives: str) -> re.Pattern[str]:
    return re.compile("|".join(alternatives), re.MULTILINE)


_REPOSITORY = _any(
    r"https://(?:huggingface\.co|hf\.co)/(?:api/(?:models|datasets)/|datasets/)?([\w.-]+/[\w.-]+?)(?=[/.,\s'\"]*(?:\s|$)|/)",
    r"[Aa]ccess to (?:model|dataset) (\S+) is restricted",
    r"^(?:OSError: )?(\S+/\S+) is (?:a gated repo|not a local folder)",
)

# In this order: a lost token can look like a missing module further down, and a full disk like a broken file.
SIGNATURES: tuple[Signature, ...] = (
    Signature(
        Symptom.DISK_FULL,
        _any(
            r"No space left on device",
            r"\[Errno (?:28|122|27)\]",
            r"\(os error (?:28|122|27)\)",
            r"Disk quota exceeded",
            r"inline_container\.cc\S* .*(?:unexpected pos|file write failed)",
            r"PytorchStreamWriter failed writing",
        ),
    ),
    Signature(
        Symptom.HOST_OOM,
        _any(
            r"DataLoader worker \(pid[^)]*\) is killed by signal: (?:Killed|Bus error)",
            r"DataLoader worker .{0,40}exited unexpectedly",
            r"insufficient shared memory \(shm\)",
            r"unable to (?:mmap|allocate shared memory)",
        ),
    ),
    Signature(
        Symptom.NCCL_TIMEOUT,
        _any(
            r"Watchdog caught collective operation timeout",
            r"NCCL (?:communicator was aborted|timeout)",
            r"nccl(?:Remote|System|UnhandledCuda|Internal)Error",
            r"Timed out waiting \d+ ?ms for (?:recv|send) operation",
            r"gloo/transport/tcp/\S+ .*(?:Connection (?:closed|reset) by peer|[Tt]ime(?:d )?out)",
            r"wait timeout after \d+ms",
            r"Some NCCL operations have failed or timed out",
        ),
        re.compile(r"OpType=(\w+)"),
    ),
    Signature(
        Symptom.DATASET_SCRIPT,
        _any(
            r"Dataset scripts are no longer supported, but found \S+",
            r"`?trust_remote_code`? is not supported anymore",
            r"contains custom code which must be executed to correctly load the dataset",
        ),
        re.compile(r"but found ([\w.-]+)"),
    ),
    Signature(
        Symptom.RATE_LIMIT,
        _any(
            r"429 Too Many Requests",
            r"429 Client Error",
            r"HTTP (?:Error |status )?429",
            r"rate limit(?:ed)?\b.{0,60}(?:Retry|retry|exceeded|reached)",
            r"We had to rate limit you",
        ),
        _REPOSITORY,
    ),
    Signature(
        Symptom.AUTH,
        _any(
            r"GatedRepoError",
            r"Cannot access gated repo",
            r"trying to access a gated repo",
            r"is a gated repository",
            r"40[13] Client Error",
            r"40[13] (?:Forbidden|Unauthorized)",
            r"Invalid (?:credentials in Authorization header|username or password|user token)",
            r"Access to (?:model|dataset) \S+ is restricted",
            r"RepositoryNotFoundError",
            r"is not a local folder (?:or a valid repository name|and is not a valid model identifier)",
            r"LocalTokenNotFoundError",
            r"api_key not configured",
        ),
        _REPOSITORY,
    ),
    Signature(
        Symptom.DTYPE,
        _any(
            r"Attempting to unscale FP16 gradients",
            r"Your setup doesn't support bf16",
            r"[Bb]float16 is only supported on GPUs with compute capability",
            r"expected (?:scalar type|m1 and m2 to have the same dtype|mat1 and mat2 to have the same dtype).{0,80}",
            r"must have the same dtype",
            r"not implemented for '(?:Half|BFloat16)'",
        ),
    ),
    Signature(
        Symptom.LORA_TARGETS,
        _any(
            r"Target modules .{1,400} not found in the base model",
            r"No modules were targeted for adaptation",
            r"Please specify `target_modules`",
        ),
    ),
    Signature(Symptom.FROZEN, _any(r"does not require grad and does not have a grad_fn")),
    Signature(
        Symptom.TOKENIZER,
        _any(
            r"index out of range in self",
            r"Assertion `?(?:srcIndex < srcSelectDimSize|.{0,40}index >= -sizes\[i\])",
            r"the data holds token id \d+, and the model has",
        ),
        re.compile(r"token id (\d+)"),
    ),
    Signature(
        Symptom.DEPS,
        _any(
            r"^(?:ImportError|ModuleNotFoundError)\b",
            r"undefined symbol: \S+",
            r"FlashAttention\d? has been toggled on, but it cannot be used",
            r"the package flash_attn seems to be not installed",
            r"version `GLIBC\w*_[\d.]+' not found",
            r"numpy\.dtype size changed",
            r"no kernel image is available for execution on the device",
            r"CUDA driver version is insufficient|NVIDIA driver on your system is too old",
            r"cannot open shared object file",
            r"is required for a normal functioning of this module",
            r"detected CUDA version .{1,40} mismatches",
        ),
        re.compile(r"No module named '([\w.]+)'|cannot import name '(\w+)'|package (\w+) seems|(\w+)[\w.-]*\.so\b"),
    ),
)


def signature_in(text: str) -> tuple[Signature, re.Match[str]] | None:
    """The first signature, in the table's order, that `text` shows."""
    for signature in SIGNATURES:
        if match := signature.pattern.search(text):
            return signature, match
    return None
