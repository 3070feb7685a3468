"""Metric `instructions_followed`: whether a response follows every verifiable instruction of its prompt.

The 25 kinds are IFEval's (Zhou et al. 2023, https://arxiv.org/abs/2311.07911), by the names and arguments of its data
set; an item's `instructions` is a list of {"kind", ...arguments}. Strict looks at the response as it is; lenient, the
paper's loose score, also at it without its first line, its last line, and asterisks.

Differs from the authors' program: sentences end at . ! ? before white space, and the language is told by its script
and its commonest words; the authors use NLTK's Punkt and langdetect, which guess differently now and then.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable
from typing import Any

from scores import refused

Arguments = dict[str, Any]


def scores(
    samples: list[dict[str, Any]], benchmark: dict[str, Any], items: list[dict[str, Any]]
) -> list[tuple[float, float]]:
    found = []
    for sample, item in zip(samples, items, strict=True):
        wanted = item["instructions"]
        strict = all(follows(sample["response"], each) for each in wanted)
        sample["followed"] = [follows(sample["response"], each) for each in wanted]
        forms = loosened(sample["response"])
        lenient = all(any(follows(form, each) for form in forms) for each in wanted)
        found.append((float(strict), float(lenient)))
    return found


def follows(response: str, instruction: Arguments) -> bool:
    if instruction["kind"] not in KINDS:
        raise refused(f"there is no instruction {instruction['kind']}; the kinds are {', '.join(KINDS)}")
    return bool(response.strip()) and KINDS[instruction["kind"]](response, instruction)


def loosened(response: str) -> list[str]:
    lines = response.split("\n")
    forms = ["\n".join(part).strip() for part in (lines, lines[1:], lines[:-1], lines[1:-1])]
    return [response, *forms, *(form.replace("*", "") for form in forms)]


# --- Counting ---------------------------------------------------------------------------------------------------------


def related(count: int, wanted: Any, relation: str) -> bool:
    return count < int(wanted) if relation == "less than" else count >= int(wanted)


def occurrences(word: str, text: str) -> int:
    return len(re.findall(re.escape(word), text, re.IGNORECASE))


def sentences(text: str) -> int:
    return len([part for part in re.split(r"(?<=[.!?])[\"')\]]*\s+", text.strip()) if re.search(r"\w", part)])


def words(text: str) -> int:
    return len(re.findall(r"\w+", text))


def parts(text: str, separator: str) -> list[str]:
    return [part.strip() for part in re.split(separator, text)]


# --- The kinds --------------------------------------------------------------------------------------------------------


def forbidden_words(text: str, a: Arguments) -> bool:
    return not any(re.search(rf"\b{re.escape(word)}\b", text, re.IGNORECASE) for word in a["forbidden_words"])


def letter_frequency(text: str, a: Arguments) -> bool:
    return related(text.lower().count(a["letter"].lower()), a["let_frequency"], a["let_relation"])


def number_paragraphs(text: str, a: Arguments) -> bool:
    found = parts(text, r"\s?\*\*\*\s?")
    inner = found[1:-1] if len(found) > 2 else []
    return all(inner) and sum(map(bool, found)) == int(a["num_paragraphs"])


def nth_paragraph_first_word(text: str, a: Arguments) -> bool:
    found = [part for part in parts(text, r"\n\n") if part]
    nth = int(a["nth_paragraph"])
    if len(found) != int(a["num_paragraphs"]) or nth > len(found):
        return False
    first = found[nth - 1].split()[0].lstrip("'\"")
    return (re.split(r"[.,?!'\"]", first)[0]).lower() == str(a["first_word"]).lower()


def postscript(text: str, a: Arguments) -> bool:
    marker = str(a["postscript_marker"]).lower()
    pattern = {"p.p.s": r"p\.\s?p\.\s?s", "p.s.": r"p\.\s?s\."}.get(marker, re.escape(marker))
    return bool(re.search(rf"\s*{pattern}.*$", text.lower(), re.MULTILINE))


def number_bullet_lists(text: str, a: Arguments) -> bool:
    found = re.findall(r"^\s*\*[^*].*$", text, re.MULTILINE) + re.findall(r"^\s*-.*$", text, re.MULTILINE)
    return len(found) == int(a["num_bullets"])


def number_highlighted(text: str, a: Arguments) -> bool:
    found = re.findall(r"\*[^\n*]*\*", text) + re.findall(r"\*\*[^\n*]*\*\*", text)
    return sum(bool(each.strip("* ")) for each in found) >= int(a["num_highlights"])


def multiple_sections(text: str, a: Arguments) -> bool:
    return len(re.findall(rf"\s?{re.escape(a['section_spliter'])}\s?\d+\s?", text)) >= int(a["num_sections"])


def json_format(text: str, a: Arguments) -> bool:
    inner = re.sub(r"^```(?:json|JSON|Json)?|```$", "", text.strip()).strip()
    try:
        json.loads(inner)
    except ValueError:
        return False
    return True


def two_responses(text: str, a: Arguments) -> bool:
    found = parts(text, r"\*{6}")
    inner = [part for n, part in enumerate(found) if part or 0 < n < len(found) - 1]
    return len(inner) == 2 and inner[0] != inner[1]


def repeat_prompt(text: str, a: Arguments) -> bool:
    return text.strip().lower().startswith(str(a["prompt_to_repeat"]).strip().lower())


def end_checker(text: str, a: Arguments) -> bool:
    return text.strip().strip('"').lower().endswith(str(a["end_phrase"]).strip().lower())


def quotation(text: str, a: Arguments) -> bool:
    text = text.strip()
    return len(text) > 1 and text[0] == text[-1] == '"'


def capital_words(text: str, a: Arguments) -> bool:
    found = [word for word in re.findall(r"[^\W\d_][\w'-]*", text) if word.isupper()]
    return related(len(found), a["capital_frequency"], a["capital_relation"])


KINDS: dict[str, Callable[[str, Arguments], bool]] = {
    "keywords:existence": lambda text, a: all(occurrences(word, text) for word in a["keywords"]),
    "keywords:frequency": lambda text, a: related(occurrences(a["keyword"], text), a["frequency"], a["relation"]),
    "keywords:forbidden_words": forbidden_words,
    "keywords:letter_frequency": letter_frequency,
    "language:response_language": lambda text, a: is_language(text, a["language"]),
    "length_constraints:number_sentences": lambda text, a: related(sentences(text), a["num_sentences"], a["relation"]),
    "length_constraints:number_paragraphs": number_paragraphs,
    "length_constraints:number_words": lambda text, a: related(words(text), a["num_words"], a["relation"]),
    "length_constraints:nth_paragraph_first_word": nth_paragraph_first_word,
    "detectable_content:number_placeholders": lambda text, a: (
        len(re.findall(r"\[.*?\]", text)) >= int(a["num_placeholders"])
    ),
    "detectable_content:postscript": postscript,
    "detectable_format:number_bullet_lists": number_bullet_lists,
    "detectable_format:constrained_response": lambda text, a: any(
        f"My answer is {each}." in text for each in ("yes", "no", "maybe")
    ),
    "detectable_format:number_highlighted_sections": number_highlighted,
    "detectable_format:multiple_sections": multiple_sections,
    "detectable_format:json_format": json_format,
    "detectable_format:title": lambda text, a: any(t.strip("<> ") for t in re.findall(r"<<[^\n]+>>", text)),
    "combination:two_responses": two_responses,
    "combination:repeat_prompt": repeat_prompt,
    "startend:end_checker": end_checker,
    "startend:quotation": quotation,
    "change_case:capital_word_frequency": capital_words,
    "change_case:english_capital": lambda text, a: text.isupper() and is_language(text, "en"),
    "change_case:english_lowercase": lambda text, a: text.islower() and is_language(text, "en"),
    "punctuation:no_comma": lambda text, a: "," not in text,
}


# --- Languages --------------------------------------------------------------------------------------------------------

_SCRIPTS = {
    "ar": "ARABIC", "fa": "ARABIC", "ur": "ARABIC", "bg": "CYRILLIC", "ru": "CYRILLIC", "bn": "BENGALI",
    "gu": "GUJARATI", "he": "HEBREW", "hi": "DEVANAGARI", "mr": "DEVANAGARI", "ne": "DEVANAGARI", "kn": "KANNADA",
    "ko": "HANGUL", "pa": "GURMUKHI", "ta": "TAMIL", "te": "TELUGU", "th": "THAI", "ja": "HIRAGANA", "zh": "CJK",
}  # fmt: skip
_COMMON = {
    "en": "the and of to in is that it for you with are on this be not have as",
    "de": "der die und das ist nicht ein eine zu den mit von ich auf für sich im dem",
    "it": "il di che la un una per non sono con del della gli le è nel questo anche",
    "pt": "o que de não uma um para com os as em por mais é do da na como",
    "fi": "ja on ei se että hän ovat oli mutta kun niin myös tai kuin joka tämä voi ole",
    "sw": "na ya wa kwa ni katika za la kuwa hii huo kama cha watu au sana hiyo yake",
    "vi": "và là của có không được cho một người trong các những với này đã để khi như",
    "es": "el la que de y en los una las por con para es no un se del su",
    "fr": "le la les et des est un une dans que pour qui pas sur avec ce il au",
}  # fmt: skip


def is_language(text: str, wanted: str) -> bool:
    """By the script of most letters; among languages of the Latin script by which one's commonest words are most."""
    names = [unicodedata.name(letter, "").split(" ")[0] for letter in text if letter.isalpha()]
    if not names:
        return True
    script = max(set(names), key=names.count)
    if wanted in _SCRIPTS:
        return script == _SCRIPTS[wanted]
    if script != "LATIN":
        return False
    said = re.findall(r"[^\W\d_]+", text.lower())
    hits = {name: sum(word in set(common.split()) for word in said) for name, common in _COMMON.items()}
    return wanted not in hits or hits[wanted] == max(hits.values())
