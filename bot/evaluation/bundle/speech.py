"""Engine `speech`: a speech-to-text model writes what it hears, and its errors are counted.

Recordings are WAV files with whole-number samples, read by the standard library, or FLAC files, read by soundfile where
it is installed; they are mixed to one channel and brought to the model's rate. Before words are compared both texts are
normalised as `speech.normalise` says:

    basic     lower case, no marks, single spaces (the default)
    english   Whisper's own normaliser for English: numbers, contractions, spelling
    none      as they are

A value is the errors of all items over the words (wer) or characters (cer) of all references.

Not covered: recordings longer than the model's window; they are refused.
"""

from __future__ import annotations

import argparse
import io
import re
import unicodedata
import wave
from collections.abc import Callable
from typing import Any

from scores import media_bytes, refused, value_and_error

LIBRARIES = ("torch", "transformers", "tokenizers", "numpy")


def run(arguments: argparse.Namespace, benchmark: dict[str, Any], items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    import torch
    from transformers import AutoModelForSpeechSeq2Seq, AutoProcessor

    gpu = torch.cuda.is_available()
    dtype = torch.bfloat16 if gpu else torch.float32
    processor = AutoProcessor.from_pretrained(arguments.model)
    model = AutoModelForSpeechSeq2Seq.from_pretrained(arguments.model, dtype=dtype)
    model = model.to("cuda" if gpu else "cpu").eval()
    extractor = processor.feature_extractor
    spoken = {key: value for key, value in (benchmark.get("speech") or {}).items() if key in ("language", "task")}
    if not getattr(model.generation_config, "lang_to_id", None):
        spoken = {}  # a model of one language takes no word about it
    longest = int((benchmark.get("generation") or {}).get("max_gen_toks", 225))
    most = getattr(model.config, "max_target_positions", None)
    longest = min(longest, most - 8) if most else longest
    normal = normaliser(processor, str((benchmark.get("speech") or {}).get("normalise", "basic")))
    samples: list[dict[str, Any]] = []
    for start in range(0, len(items), arguments.batch_size):
        batch = items[start : start + arguments.batch_size]
        heard = [sound(item, extractor.sampling_rate) for item in batch]
        for item, samples_of_item in zip(batch, heard, strict=True):
            seconds = len(samples_of_item) / extractor.sampling_rate
            if getattr(extractor, "chunk_length", None) and seconds > extractor.chunk_length:
                raise refused(
                    f"item {item['id']} lasts {seconds:.1f} s, and the model hears {extractor.chunk_length} s: cut it"
                )
        inputs = extractor(heard, sampling_rate=extractor.sampling_rate, return_tensors="pt")
        features = {key: value.to(model.device) for key, value in inputs.items()}
        features = {key: value.to(dtype) if value.is_floating_point() else value for key, value in features.items()}
        with torch.inference_mode():
            tokens = model.generate(**features, max_new_tokens=longest, do_sample=False, **spoken)
        ends = model.generation_config.eos_token_id
        ends = set(ends) if isinstance(ends, list) else {ends}
        texts = processor.batch_decode(tokens, skip_special_tokens=True)
        for item, text, ids in zip(batch, texts, tokens.tolist(), strict=True):
            samples.append(
                {
                    "id": item["id"],
                    "response": text.strip(),
                    "reference": item["reference"],
                    "finish": "stop" if ends & set(ids[1:]) else "length",
                    "_pair": (normal(text), normal(item["reference"])),
                }
            )
        print(f"answered {len(samples)}", flush=True)
    for sample in samples:
        sample["score"], sample["weight"] = scored(sample, benchmark["metric"])
    return samples


def summary(samples: list[dict[str, Any]]) -> dict[str, Any]:
    values = {}
    for metric in ("wer", "cer"):
        parts = [scored(sample, metric) for sample in samples]
        values[metric] = value_and_error(metric, [{"score": score, "weight": weight} for score, weight in parts])[0]
    ended = sum(sample["finish"] == "stop" for sample in samples) / len(samples)
    return {"metrics": values, "termination_rate": ended}


# --- Counting errors ------------------------------------------------------------------------------------------------


def scored(sample: dict[str, Any], metric: str) -> tuple[float, float]:
    """(errors per word or character of the reference, how many it has)."""
    heard, wanted = sample["_pair"]
    units = (heard.split(), wanted.split()) if metric == "wer" else (list(heard), list(wanted))
    if not units[1]:
        raise refused(f"item {sample['id']} has no words left in its reference once it is normalised")
    return edits(*units) / len(units[1]), float(len(units[1]))


def edits(heard: list[str], wanted: list[str]) -> int:
    """Fewest insertions, deletions and substitutions between two sequences (Levenshtein 1966)."""
    row = list(range(len(wanted) + 1))
    for n, one in enumerate(heard, start=1):
        before, row[0] = row[0], n
        for m, other in enumerate(wanted, start=1):
            before, row[m] = row[m], min(row[m] + 1, row[m - 1] + 1, before + (one != other))
    return row[-1]


def normaliser(processor: Any, kind: str) -> Callable[[str], str]:
    if kind == "none":
        return str.strip
    if kind == "english":
        from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

        spelling = getattr(processor.tokenizer, "english_spelling_normalizer", None)
        return EnglishTextNormalizer(spelling or {})  # type: ignore[no-any-return]
    if kind != "basic":
        raise refused(f"speech.normalise {kind} is not known; write basic, english or none")
    return basic


def basic(text: str) -> str:
    """Letters and digits of any script in lower case; whatever else becomes a space."""
    kept = (c if unicodedata.category(c)[0] in "LNM" or c == "'" else " " for c in unicodedata.normalize("NFKC", text))
    return re.sub(r"\s+", " ", "".join(kept)).strip().lower()


# --- Recordings -----------------------------------------------------------------------------------------------------


def sound(item: dict[str, Any], rate: int) -> Any:
    """One channel of float32 in [-1, 1] at `rate` samples per second."""
    content = media_bytes(item, "audio")
    if content.startswith(b"fLaC"):
        return flac(content, rate)
    try:
        with wave.open(io.BytesIO(content)) as file:
            channels, width, own = file.getnchannels(), file.getsampwidth(), file.getframerate()
            raw = file.readframes(file.getnframes())
    except (wave.Error, EOFError) as error:
        raise refused(f"item {item.get('id')}: audio is not a WAV file of whole-number samples ({error})") from None
    return resampled(mono(raw, width, channels), own, rate)


def flac(content: bytes, rate: int) -> Any:
    try:
        import soundfile
    except ImportError:
        raise refused("FLAC recordings need the package soundfile: install it where jobs run") from None
    values, own = soundfile.read(io.BytesIO(content), dtype="float32", always_2d=True)
    return resampled(values.mean(axis=1), own, rate)


def mono(raw: bytes, width: int, channels: int) -> Any:
    """What WAV calls PCM of 8 (unsigned), 16, 24 or 32 bits."""
    import numpy as np

    if width == 1:
        values = np.frombuffer(raw, np.uint8).astype(np.float32) - 128
    elif width == 3:
        parts = np.frombuffer(raw, np.uint8).reshape(-1, 3).astype(np.int32)
        values = ((parts[:, 0] << 8 | parts[:, 1] << 16 | parts[:, 2] << 24) >> 8).astype(np.float32)
    else:
        values = np.frombuffer(raw, {2: "<i2", 4: "<i4"}[width]).astype(np.float32)
    return (values / float(2 ** (8 * width - 1))).reshape(-1, channels).mean(axis=1)


def resampled(values: Any, own: int, rate: int) -> Any:
    """At another rate, by its spectrum: nothing above half the lower rate remains."""
    import numpy as np

    if own == rate or not len(values):
        return values.astype(np.float32)
    length = round(len(values) * rate / own)
    return (np.fft.irfft(np.fft.rfft(values), length) * (length / len(values))).astype(np.float32)
