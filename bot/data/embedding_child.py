"""Makes embeddings for `bot.data.paraphrases`, as a process of its own: python embedding_child.py MODEL

Reads a JSON list of texts a line; writes a JSON line with rows and columns, and then so many 32-bit floats. A text's
embedding is the mean of its tokens' last states, as sentence-transformers' models are made for
(https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2), of length 1.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

# Weights are read as safetensors and no code of a model's own is run.
os.environ.update(TOKENIZERS_PARALLELISM="false", TRANSFORMERS_VERBOSITY="error")
_BATCH = 32
_LONGEST = 512


def main() -> None:
    # What libraries print must not stand between our own lines.
    out, sys.stdout = sys.stdout.buffer, sys.stderr
    try:
        embed = embedder(sys.argv[1])
    except (ImportError, OSError, ValueError) as error:
        answer(out, {"error": " ".join(str(error).split())[:300] or type(error).__name__})
        return
    answer(out, {"ready": 1})
    for line in sys.stdin.buffer:
        try:
            vectors = embed(json.loads(line))
        except RuntimeError as error:  # out of memory, say
            answer(out, {"error": " ".join(str(error).split())[:300]})
            continue
        answer(out, {"rows": vectors.shape[0], "columns": vectors.shape[1]}, vectors.tobytes())


def answer(out: Any, head: dict[str, Any], data: bytes = b"") -> None:
    out.write(json.dumps(head).encode() + b"\n" + data)
    out.flush()


def embedder(model_name: str) -> Any:
    """Texts -> numpy array of 32-bit floats, one row a text."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_name)
    model = AutoModel.from_pretrained(model_name, use_safetensors=True, dtype=torch.float32).eval()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model.to(device)
    limit = min(_LONGEST, getattr(model.config, "max_position_embeddings", None) or _LONGEST)

    def embed(texts: list[str]) -> Any:
        parts = []
        for start in range(0, len(texts), _BATCH):
            batch = tokenizer(
                texts[start : start + _BATCH], padding=True, truncation=True, max_length=limit, return_tensors="pt"
            ).to(device)
            with torch.inference_mode():
                states = model(**batch).last_hidden_state
            mask = batch["attention_mask"].unsqueeze(-1)
            means = (states * mask).sum(1) / mask.sum(1).clamp(min=1)
            parts.append(torch.nn.functional.normalize(means, dim=1).cpu())
        return torch.cat(parts).numpy()

    return embed


if __name__ == "__main__":
    main()
