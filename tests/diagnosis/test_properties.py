"""Random and damaged folders raise nothing but UserError; noisy healthy curves are never blamed."""

from __future__ import annotations

import json
import math
import random
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from bot.diagnosis import diagnose, diagnosis_of, preflight, read_folder
from bot.domain.diagnosis import DiagnosisReport
from bot.errors import UserError

FILES = (
    "metrics.jsonl",
    "trainer_state.json",
    "trainer_log.jsonl",
    "config.json",
    "adapter_config.json",
    "log.txt",
    "evaluation.json",
    "baseline.json",
    "goal.json",
    "train.jsonl",
    "eval.jsonl",
    "data_audit.json",
    "job.json",
    "setup.json",
    "completions.jsonl",
    "hardware.json",
    "timing.json",
)
KEYS = (
    "step",
    "loss",
    "grad_norm",
    "eval_loss",
    "learning_rate",
    "epoch",
    "entropy",
    "mean_token_accuracy",
    "reward",
    "num_tokens",
    "completions/clipped_ratio",
    "log_history",
    "samples",
    "value",
    "n",
    "strict",
    "lenient",
    "target",
    "standard_error",
    "finish",
    "prompt",
    "completion",
    "response",
    "reference",
    "score",
    "rows",
    "truncated_rows",
    "token_lengths",
    "answer_token_lengths",
    "max",
    "p95",
    "p50",
    "supervised_eos_rows",
    "zero_label_rows",
    "duplicate_rows",
    "eos_token_ids",
    "pad_token_id",
    "state",
    "failure",
    "evidence",
    "messages",
    "text",
    "parameters",
    "kl",
    "frac_reward_zero_std",
    "rewards/ours/mean",
    "rewards/exact_match/mean",
    "rewards/margins",
    "rewards/accuracies",
    "rewards/chosen",
    "logps/chosen",
    "logps/rejected",
    "completions/mean_length",
    "sampling/importance_sampling_ratio/mean",
    "probe/exact_match",
    "probe/termination_rate",
    "eval_rewards/accuracies",
    "eval_old_loss",
    "train/loss",
    "chosen",
    "rejected",
    "label",
    "rewards",
    "fresh",
    "old_tasks",
    "name",
    "before",
    "after",
    "template",
    "compared_rows",
    "train_prefix_equal_rows",
    "double_bos_rows",
    "assistant_mask_rows",
    "vocabulary",
    "embeddings",
    "largest_id",
    "new_untrained_tokens",
    "attention",
    "packing",
    "packing_is_isolated",
    "implementation",
    "lora",
    "matched_modules",
    "target_modules",
    "trainable_parameters",
    "precision",
    "device_capability",
    "bf16",
    "labels",
    "languages",
    "language",
    "metric",
    "reward_check",
    "wrong",
    "errors",
    "null_completions",
    "chosen_equals_rejected_rows",
    "mean_rejected_tokens",
    "max_completion_length",
    "warm_up_steps",
    "max_steps",
    "frozen_after_3_steps",
    "gpus",
    "device",
    "seconds",
    "seconds_per_step",
    "seconds_since_output",
    "timeout_seconds",
    "exit_code",
    "signal",
    "method",
)
RECIPE_KEYS = (
    "learning_rate", "max_steps", "max_length", "num_train_epochs", "packing", "fp16", "max_grad_norm", "use_peft",
    "per_device_train_batch_size", "lr_scheduler_type", "init_from", "timeout_seconds", "dtype", "data_prompt_column",
    "max_completion_length", "eos_token", "dataset_text_field", "gradient_accumulation_steps", "data_deduplicate",
    "method", "beta", "reward_functions", "reward_weights", "temperature", "num_generations", "epsilon_high", "optim",
    "assistant_only_loss", "bf16", "micro_batch_size", "sequence_len", "warmup_steps", "warmup_ratio", "language",
    "chat_template_path", "attn_implementation", "lora_target_modules", "save_total_limit", "datasets", "adapter",
)  # fmt: skip
WORDS = (
    "NaN",
    "Infinity",
    "-inf",
    "",
    "x",
    "failed",
    "succeeded",
    "oom",
    "timeout",
    "length",
    "stop",
    "1e3",
    "Ünïcode",
)


POLICY_KEYS = (
    "reward", "reward_std", "kl", "entropy", "frac_reward_zero_std", "rewards/ours/mean", "rewards/exact_match/mean",
    "completions/mean_length", "completions/clipped_ratio", "sampling/importance_sampling_ratio/mean",
)  # fmt: skip
PAIR_KEYS = (
    "rewards/margins", "rewards/accuracies", "rewards/chosen", "logps/chosen", "logps/rejected", "probe/exact_match",
    "eval_loss", "eval_rewards/accuracies",
)  # fmt: skip
AUDIT_PARTS = {
    "template": ("compared_rows", "train_prefix_equal_rows", "double_bos_rows", "assistant_mask_rows"),
    "vocabulary": ("tokenizer", "embeddings", "largest_id", "new_untrained_tokens"),
    "attention": ("implementation", "packing_is_isolated"),
    "lora": ("target_modules", "matched_modules", "trainable_parameters"),
    "precision": ("dtype", "fp16", "bf16", "device_capability"),
    "labels": ("good", "bad", "ugly"),
    "languages": ("en", "de"),
    "token_lengths": ("p50", "p95", "max"),
    "answer_token_lengths": ("p50", "p95", "max"),
}
AUDIT_COUNTS = (
    "truncated_rows", "dropped_rows", "supervised_eos_rows", "zero_label_rows", "duplicate_rows", "null_completions",
    "empty_completions", "chosen_equals_rejected_rows", "mean_rejected_tokens", "max_completion_length", "pad_token_id",
    "packing", "max_length", "warm_up_steps",
)  # fmt: skip


class Garbage:
    """Values that a damaged or hostile folder may hold. A seed is enough to make one again, and takes a millisecond."""

    def __init__(self, seed: int) -> None:
        self.source = random.Random(seed)

    def scalar(self) -> Any:
        numbers = (
            0,
            1,
            -1,
            3,
            10**25,
            2**63,
            0.0,
            1e-300,
            1e300,
            math.nan,
            math.inf,
            -math.inf,
            self.source.gauss(0, 5),
        )
        return self.source.choice((None, True, False, self.source.choice(WORDS), *numbers))

    def value(self, depth: int = 0) -> Any:
        kind = self.source.random()
        if depth > 3 or kind < 0.7:
            return self.scalar()
        if kind < 0.85:
            return [self.value(depth + 1) for _ in range(self.source.randint(0, 4))]
        return self.object(depth + 1)

    def object(self, depth: int = 0) -> dict[str, Any]:
        return {self.source.choice(KEYS): self.value(depth) for _ in range(self.source.randint(0, 12))}

    def plausible_curve(self) -> list[dict[str, Any]]:
        """Records with the right keys and any values, so that the rules behind the first checks are reached."""
        keys = [*self.source.sample(self.source.choice((KEYS[:11], POLICY_KEYS, PAIR_KEYS)), 5), "loss", "grad_norm"]
        scale = self.source.choice((1e-9, 1.0, 1e9))
        return [
            {"step": step}
            | {key: self.scalar() if self.source.random() < 0.1 else scale * self.source.random() for key in keys}
            for step in range(self.source.randint(0, 60))
        ]

    def audit(self) -> dict[str, Any]:
        """The audit's own parts with any values, counts most often."""
        parts = self.source.sample(sorted(AUDIT_PARTS), self.source.randint(0, len(AUDIT_PARTS)))
        number = lambda: self.source.choice((self.source.randint(0, 400), self.scalar()))  # noqa: E731
        nested = {part: {key: number() for key in AUDIT_PARTS[part]} for part in parts}
        counts = {key: number() for key in self.source.sample(AUDIT_COUNTS, self.source.randint(0, len(AUDIT_COUNTS)))}
        checks = {"ours": {"reference": self.scalar(), "wrong": self.scalar(), "errors": self.scalar()}}
        return {"rows": 400, "reward_check": checks} | nested | counts

    def content(self, name: str) -> bytes:
        kind = self.source.random()
        if kind < 0.15:
            return self.source.randbytes(self.source.randint(0, 300))
        if name == "log.txt":
            return "\n".join(self.source.choice(LOG_LINES) for _ in range(self.source.randint(0, 12))).encode()
        if name == "metrics.jsonl" and kind < 0.7:
            rows = self.plausible_curve()
        elif name == "data_audit.json" and kind < 0.7:
            rows = [self.audit()]
        elif name.endswith(".jsonl"):
            rows = [self.object() for _ in range(self.source.randint(0, 40))]
        else:
            rows = [self.object()]
        text = "\n".join(json.dumps(row) for row in rows)
        return text[: len(text) - (7 if kind > 0.9 else 0)].encode()

    def recipe(self) -> bytes:
        if self.source.random() < 0.1:
            return self.source.randbytes(200)
        keys = self.source.sample(RECIPE_KEYS, self.source.randint(0, 10))
        return "".join(f"{key}: {json.dumps(self.scalar())}\n" for key in keys).encode()


LOG_LINES = (
    "Traceback (most recent call last):", '  File "/job/train.py", line 8, in main', "KeyError: 'text'", "KeyError:",
    "ValueError: num_samples=0", "train.py: unknown key x", "prepare.py: which column to use; the columns are ,",
    "CUDA out of memory", "DUE TO TIME LIMIT", "Error", "    x", "", "Exception ignored in: x", "a.py: b: c", "\x00",
    "{'loss': nan, 'grad_norm': inf, 'epoch': 0.1}", "{'loss': '1.2', 'epoch': 1e400}", "{'loss': [1, 2}",
    "ImportError: x.so: undefined symbol: y", "429 Too Many Requests", "No space left on device",
    "Watchdog caught collective operation timeout: WorkNCCL(OpType=", "torch.distributed...ChildFailedError: ",
    "401 Client Error: https://huggingface.co/a/b/resolve", "RuntimeError: DataLoader worker (pid 1) is killed by "
    "signal: Killed.",
)  # fmt: skip


def written(files: dict[str, bytes]) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="diagnosis-"))
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def removed(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_garbage_folder_gives_a_report_or_a_user_error(seed: int) -> None:
    garbage = Garbage(seed)
    names = garbage.source.sample(FILES, garbage.source.randint(0, len(FILES)))
    files = {name: garbage.content(name) for name in names}
    recipe = garbage.recipe()
    folder = written({**files, "recipe.yaml": recipe})
    message = "recipe.yaml"
    try:
        seen = read_folder(folder)
        middle = seen.until(seen.last_step // 2)
        for found in (diagnose(folder), preflight(folder), diagnosis_of(middle)):
            assert (
                DiagnosisReport.from_dict(json.loads(json.dumps(found.as_dict(), allow_nan=False))).healthy
                == found.healthy
            )
    except UserError as error:
        message = str(error)
    finally:
        removed(folder)
    assert "recipe.yaml" in message


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    steps=st.sampled_from([15, 30, 60, 150, 400]),
    start=st.floats(0.7, 2.4),
    fall=st.floats(0.03, 0.6),
    knee=st.floats(0.03, 0.2),
    noise=st.floats(0.0, 0.12),
    schedule=st.sampled_from(["cosine", "linear", "constant_with_warmup"]),
    lora=st.booleans(),
)
def test_falling_curve_with_noise_is_never_blamed(
    seed: int, steps: int, start: float, fall: float, knee: float, noise: float, schedule: str, lora: bool
) -> None:
    """Losses of instruction tuning: they fall, flatten with the schedule, spike now and then, and recover."""
    metrics = healthy_metrics(random.Random(seed), steps, start, fall, knee, noise, schedule)
    rate = 1e-4 if lora else 2e-5
    recipe = f"init_from: Qwen/Qwen3-1.7B\nlearning_rate: {rate}\nlr_scheduler_type: {schedule}\nuse_peft: {lora}\n"
    text = "\n".join(json.dumps(record) for record in metrics)
    folder = written({"recipe.yaml": recipe.encode(), "metrics.jsonl": text.encode()})
    try:
        run = read_folder(folder)
        for found in (diagnose(folder), *(diagnosis_of(run.until(round(share * steps))) for share in (0.1, 0.3, 0.7))):
            assert found.healthy, [d.cause for d in found.diagnoses]
    finally:
        removed(folder)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    steps=st.sampled_from([30, 60, 200]),
    start=st.floats(0.02, 0.3),
    end=st.floats(0.5, 1.0),
    knee=st.floats(0.05, 0.4),
    spike=st.floats(0.0, 45.0),
)
def test_policy_that_learns_is_never_blamed(
    seed: int, steps: int, start: float, end: float, knee: float, spike: float
) -> None:
    """Rewards that rise to any level, with entropy and spread that go with them, and a spike of the divergence."""
    source = random.Random(seed)
    records = []
    for step in range(1, steps + 1):
        level = end - (end - start) * math.exp(-step / (knee * steps))
        reward = min(1.0, max(0.0, level + source.gauss(0, 0.05)))
        records.append(
            {
                "step": step,
                "loss": source.gauss(0, 0.05),
                "grad_norm": math.exp(source.gauss(0, 1)),
                "reward": reward,
                "reward_std": 0.3,
                "rewards/ours/mean": reward,
                "rewards/exact_match/mean": reward,
                "frac_reward_zero_std": min(1.0, max(0.0, level + source.gauss(0, 0.1))),
                "entropy": max(0.0005, 0.2 * (1 - level) + source.gauss(0, 0.01)),
                "kl": 0.5 * (1 - math.exp(-step / 10)) * math.exp(source.gauss(0, 0.3)) + spike * (step == steps // 2),
                "completions/mean_length": 14 - 8 * level + source.gauss(0, 0.5),
                "completions/clipped_ratio": max(0.0, 0.2 * (1 - level) + source.gauss(0, 0.03)),
            }
        )
    recipe = b"method: grpo\nreward_functions: ours\nlearning_rate: 1.0e-3\nbeta: 0.01\ninit_from: postdoc/tiny-qwen3\n"
    folder = written({"recipe.yaml": recipe, "metrics.jsonl": "\n".join(map(json.dumps, records)).encode()})
    try:
        run = read_folder(folder)
        for found in (diagnose(folder), *(diagnosis_of(run.until(round(share * steps))) for share in (0.2, 0.5, 0.8))):
            assert found.healthy, [d.cause for d in found.diagnoses]
    finally:
        removed(folder)


def healthy_metrics(
    source: random.Random, steps: int, start: float, fall: float, knee: float, noise: float, schedule: str
) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = []
    end = start * (1 - fall)
    for step in range(1, steps + 1):
        share = step / steps
        rate = {"cosine": (1 + math.cos(math.pi * share)) / 2, "linear": 1 - share}.get(schedule, 1.0)
        level = end + (start - end) * math.exp(-share / knee)
        spike = source.uniform(2, 8) if source.random() < 0.003 else 1.0
        records.append(
            {
                "step": step,
                "loss": level * math.exp(source.gauss(0, noise)) * spike,
                "grad_norm": math.exp(source.gauss(0, 0.4)),
                "learning_rate": 2e-5 * rate,
                "entropy": level * source.uniform(0.9, 1.05),
                "mean_token_accuracy": 1 - level / 5,
                "epoch": 3 * share,
            }
        )
        if step % max(1, steps // 10) == 0:
            records.append({"step": step, "eval_loss": level * 1.03 * math.exp(source.gauss(0, 0.006))})
    return records


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), steps=st.integers(60, 300), end=st.floats(1e-5, 0.02), noise=st.floats(0.0, 0.8))
def test_solved_task_is_never_blamed(seed: int, steps: int, end: float, noise: float) -> None:
    """Near zero everything jumps by factors: loss, entropy, grad_norm and the held-out loss."""
    source = random.Random(seed)
    records: list[dict[str, Any]] = []
    for step in range(1, steps + 1):
        loss = (end + 7 * math.exp(-step / 12)) * math.exp(source.gauss(0, noise * min(1.0, step / 40)))
        records.append(
            {
                "step": step,
                "loss": loss,
                "grad_norm": loss * 3,
                "entropy": 0.0 if loss < 0.01 else loss,
                "learning_rate": 3e-3,
                "mean_token_accuracy": math.exp(-loss),
                "epoch": step / 60,
            }
        )
        if step % 20 == 0:
            records.append(
                {"step": step, "eval_loss": (end + 7 * math.exp(-step / 12)) * math.exp(source.gauss(0, noise))}
            )
    samples = [{"id": str(i), "score": float(i % 50 > 0), "finish": "stop"} for i in range(100)]
    evaluation = {"value": 0.98, "n": 100, "standard_error": 0.014, "strict": 0.98, "lenient": 0.98, "samples": samples}
    folder = written(
        {
            "recipe.yaml": b"learning_rate: 3.0e-3\nmax_steps: 300\n",
            "metrics.jsonl": "\n".join(json.dumps(record) for record in records).encode(),
            "evaluation.json": json.dumps(evaluation).encode(),
        }
    )
    try:
        found = diagnose(folder)
        assert found.healthy, [d.cause for d in found.diagnoses]
    finally:
        removed(folder)
