"""Names of models in running text and in headings of tables."""

from __future__ import annotations

import re

VARIANT = re.compile(
    r"(?<![\w.-])(?:(?:[A-Z][\w.]*(?:-[A-Z0-9][\w.]*)*-)?\d+(?:\.\d+)?[BM](?![\w%])(?!\s(?:[\w-]+\s)?(?:tokens|"
    r"examples|samples|pairs|words|rows|instances|documents|conversations|prompts))"
    r"(?:-[A-Z]\w+|-v\d+(?:\.\d+)*(?![\w]))*|"
    r"(?:Llama|LLaMA|Mistral|Qwen|Gemma|Phi|SmolLM|OLMo|Pythia|Falcon|Yi|DeepSeek)[\w.-]*(?: "
    r"\d+(?:\.\d+)?(?: \d+B)?(?![\w.]))?|"
    r"(?:(?:T5|mT5|ByT5|Flan-T5|(?:[A-Z]\w{0,6})?BERTa?|ELECTRA|m?BART|Whisper|wav2vec ?2?(?:\.0)?|HuBERT|ViT|"
    r"CLIP|SigLIP|"
    r"XLM-R|PEGASUS)(?:[- ]v\d)?[- ](?:tiny|mini|small|base|medium|large|xx?l|huge|giant|[SBLHG]/\d+)(?![a-z])(?:-v\d)?"
    r"|large-v\d))"
)
"""A model as a value is said for it: `7B`, `Qwen2.5-7B`, `the Llama 3 model`."""
SIZE_WORD = re.compile(r"(?:tiny|mini|small|base|medium|large|xx?l|huge|giant)(?:-v\d)?(?:-turbo)?", re.IGNORECASE)
SIZE = re.compile(r"(?:~ ?)?\d+(?:\.\d+)? ?(?:[BM]|billion|million)(?: (?:parameters|params|model))?")
"""The size of a model as a table's head gives it: `7B`, `1.5B model`."""
