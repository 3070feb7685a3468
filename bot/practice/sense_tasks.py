"""Practice tasks beyond chat: texts to classify, small images, spoken words made of tones, texts to model.

    from bot.practice.sense_tasks import SENSE_TASKS, rows
    rows("shapes", "train", 1200, seed=0)       # [{"image": "<base64 of a PNG>", "label": "circle"}, ...]

Every task is a function `draw(rng) -> row` whose row has the columns that its method trains on: classify `text` and
`label`, vision `image` and `label`, speech `audio` and `text`, pretrain `text`. As with the chat tasks, a row belongs
to the split that its content hashes to, whatever seed drew it, so no training row of any seed is ever evaluated.

Standard library only. Not covered: being like the world. What a recipe does here says nothing about photographs.
"""

from __future__ import annotations

import base64
import io
import math
import random
import struct
import wave
import zlib
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice

from bot.evaluation.tasks import SPLITS, TRAIN, split_of

Row = dict[str, str]
SIDE = 16
"""Pixels of an image's edge."""
HERTZ = 8000
"""Samples per second of what is spoken, eight bits each: a telephone's."""
WORD_SECONDS = 0.16
MOST_MISSES = 5000
"""So many draws in a row without a new one: the task has no more."""


@dataclass(frozen=True, slots=True)
class SenseTask:
    name: str
    method: str
    description: str
    draw: Callable[[random.Random], Row]
    base: str
    """The tiny model that it is made for (`bot.practice.tiny_models`)."""
    metric: str
    target: float
    """What the method's default recipe reaches with room to spare, in the metric's own unit."""
    labels: tuple[str, ...] = ()


# --- Texts with a label ---------------------------------------------------------------------------------------------

NEUTRAL = [
    "the",
    "a",
    "this",
    "that",
    "film",
    "book",
    "song",
    "meal",
    "trip",
    "room",
    "day",
    "story",
    "plan",
    "game",
    "team",
    "was",
    "is",
    "felt",
    "seemed",
    "looked",
    "and",
    "with",
    "very",
    "quite",
    "rather",
    "again",
    "today",
    "there",
    "here",
    "again",
    "about",
    "for",
    "we",
    "they",
    "it",
    "she",
    "he",
]
PRAISE = ["good", "great", "lovely", "fine", "bright", "warm", "happy", "clever", "fresh", "superb", "kind", "sweet"]
BLAME = ["bad", "awful", "dull", "poor", "cold", "sad", "stale", "weak", "rude", "ugly", "slow", "bitter"]
TOPICS = {
    "sport": ["goal", "match", "coach", "player", "league", "score", "kick", "race"],
    "food": ["bread", "soup", "apple", "cook", "salt", "oven", "taste", "plate"],
    "weather": ["rain", "storm", "cloud", "wind", "snow", "sunny", "frost", "fog"],
    "money": ["bank", "price", "coin", "loan", "tax", "market", "profit", "debt"],
}
COLOURS = ["red", "blue", "green", "yellow", "black", "white"]


def draw_sentiment(rng: random.Random) -> Row:
    """More words of praise than of blame, or the other way round, among neutral ones."""
    positive = rng.random() < 0.5
    much, little = (PRAISE, BLAME) if positive else (BLAME, PRAISE)
    few = rng.randint(0, 1)
    said = rng.choices(NEUTRAL, k=rng.randint(4, 8)) + rng.choices(much, k=few + rng.randint(1, 2))
    said += rng.choices(little, k=few)
    rng.shuffle(said)
    return {"text": " ".join(said), "label": "positive" if positive else "negative"}


def draw_topic(rng: random.Random) -> Row:
    """Two or three words of one topic and one of another, among neutral ones."""
    label, other = rng.sample(sorted(TOPICS), 2)
    said = rng.choices(NEUTRAL, k=rng.randint(4, 8)) + rng.choices(TOPICS[label], k=rng.randint(2, 3))
    said += rng.choices(TOPICS[other], k=rng.randint(0, 1))
    rng.shuffle(said)
    return {"text": " ".join(said), "label": label}


def draw_negation(rng: random.Random) -> Row:
    """One word of praise or blame, and `not` before it half of the time: neither word says the label alone."""
    praise, negated = rng.random() < 0.5, rng.random() < 0.5
    verdict = [*(["not"] if negated else []), rng.choice(PRAISE if praise else BLAME)]
    said = [*rng.choices(NEUTRAL, k=rng.randint(2, 5)), *verdict, *rng.choices(NEUTRAL, k=rng.randint(0, 4))]
    return {"text": " ".join(said), "label": "positive" if praise != negated else "negative"}


def draw_parity(rng: random.Random) -> Row:
    """Whether `ping` is said an even or an odd number of times, none to three."""
    pings = rng.randint(0, 3)
    said = ["ping"] * pings + rng.choices(NEUTRAL, k=rng.randint(3, 6))
    rng.shuffle(said)
    return {"text": " ".join(said), "label": "odd" if pings % 2 else "even"}


def draw_first(rng: random.Random) -> Row:
    """Which of two colours is named first: only their order tells."""
    one, two = rng.sample(COLOURS, 2)
    before, between, after = (rng.choices(NEUTRAL, k=rng.randint(0, 3)) for _ in range(3))
    return {"text": " ".join([*before, one, *between, two, *after]), "label": one}


# --- Images ---------------------------------------------------------------------------------------------------------

Pixel = tuple[int, int, int]
PALETTE: dict[str, Pixel] = {
    "red": (220, 40, 40), "green": (40, 190, 60), "blue": (50, 70, 230), "yellow": (230, 210, 40),
    "purple": (150, 40, 180),
}  # fmt: skip
FONT = [
    "111101101101111",
    "010110010010111",
    "111001111100111",
    "111001111001111",
    "101101111001001",
    "111100111001111",
    "111100111101111",
    "111001010010010",
    "111101111101111",
    "111101111001111",
]
"""The ten digits, three pixels by five, row by row."""


def png(pixels: list[Pixel], side: int = SIDE) -> str:
    """Base64 of an RGB image whose pixels are given row by row (https://www.w3.org/TR/png-3/)."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    lines = b"".join(
        b"\0" + bytes(channel for pixel in pixels[y * side : (y + 1) * side] for channel in pixel)
        for y in range(len(pixels) // side)
    )
    header = struct.pack(">IIBBBBB", side, len(pixels) // side, 8, 2, 0, 0, 0)
    whole = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    return base64.b64encode(whole).decode()


def painted(rng: random.Random, inside: Callable[[int, int], bool], ink: Pixel | None = None) -> str:
    """An image with `ink` where `inside(x, y)` holds, a dark ground elsewhere, and noise over both."""
    ink = ink or PALETTE[rng.choice(sorted(PALETTE))]
    ground = (rng.randint(0, 60), rng.randint(0, 60), rng.randint(0, 60))
    pixels: list[Pixel] = []
    for y in range(SIDE):
        for x in range(SIDE):
            red, green, blue = ink if inside(x, y) else ground
            noise = rng.randint(-25, 25)
            pixels.append((_byte(red + noise), _byte(green + noise), _byte(blue + noise)))
    return png(pixels)


def _byte(value: int) -> int:
    return min(max(value, 0), 255)


def draw_shapes(rng: random.Random) -> Row:
    label = rng.choice(("circle", "cross", "square", "triangle"))
    radius = rng.randint(3, 5)
    cx, cy = (rng.randint(radius, SIDE - 1 - radius) for _ in range(2))

    def inside(x: int, y: int) -> bool:
        dx, dy = abs(x - cx), y - cy
        if max(dx, abs(dy)) > radius:
            return False
        if label == "circle":
            return dx * dx + dy * dy <= radius * radius
        if label == "cross":
            return dx <= 0 or dy == 0
        return label == "square" or 2 * dx <= dy + radius

    return {"image": painted(rng, inside), "label": label}


def draw_stripes(rng: random.Random) -> Row:
    label = rng.choice(("diagonal", "grid", "horizontal", "vertical"))
    width, shift = rng.randint(2, 3), rng.randint(0, 5)

    def inside(x: int, y: int) -> bool:
        across, down = (x + shift) // width % 2, (y + shift) // width % 2
        if label == "grid":
            return across != down
        if label == "diagonal":
            return (x + y + shift) // width % 2 == 0
        return bool(down if label == "horizontal" else across)

    return {"image": painted(rng, inside), "label": label}


def draw_numerals(rng: random.Random) -> Row:
    digit = rng.randrange(10)
    left, top = rng.randint(1, SIDE - 7), rng.randint(1, SIDE - 11)

    def inside(x: int, y: int) -> bool:
        column, line = (x - left) // 2, (y - top) // 2
        return 0 <= column < 3 and 0 <= line < 5 and FONT[digit][3 * line + column] == "1"

    return {"image": painted(rng, inside), "label": str(digit)}


def draw_colours(rng: random.Random) -> Row:
    """The colour of the larger of two blots."""
    label, other = rng.sample(sorted(PALETTE), 2)
    left = rng.random() < 0.5
    cy, small = rng.randint(6, 9), rng.randint(1, 2)
    spots = [(4, 4, label), (12, small, other)] if left else [(11, 4, label), (3, small, other)]
    blots = {
        (x, y): colour
        for cx, radius, colour in spots
        for x in range(SIDE)
        for y in range(SIDE)
        if (x - cx) ** 2 + (y - cy) ** 2 <= radius * radius
    }
    ground = (rng.randint(0, 60), rng.randint(0, 60), rng.randint(0, 60))
    pixels: list[Pixel] = []
    for y in range(SIDE):
        for x in range(SIDE):
            red, green, blue = PALETTE[blots[x, y]] if (x, y) in blots else ground
            noise = rng.randint(-40, 40)
            pixels.append((_byte(red + noise), _byte(green + noise), _byte(blue + noise)))
    return {"image": png(pixels), "label": label}


def draw_dots(rng: random.Random) -> Row:
    """One to four dots of two pixels by two that do not touch."""
    count = rng.randint(1, 4)
    cells = rng.sample([(x, y) for x in range(4) for y in range(4)], count)
    places = [(4 * x + rng.randint(0, 1) + 1, 4 * y + rng.randint(0, 1) + 1) for x, y in cells]
    ink = PALETTE[rng.choice(sorted(PALETTE))]
    lit = {(left + dx, top + dy) for left, top in places for dx in (0, 1) for dy in (0, 1)}
    return {"image": painted(rng, lambda x, y: (x, y) in lit, ink), "label": str(count)}


# --- Spoken words ---------------------------------------------------------------------------------------------------

DIGIT_WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
VERBS, THINGS = ["open", "close", "start", "stop"], ["door", "lamp", "horn", "radio"]
TONES = (400, 550, 750, 1000, 1350, 1800, 2400)
"""Hertz, about the third of an octave that mel filters still tell apart."""


@lru_cache(maxsize=64)
def _sine(hertz: int) -> tuple[float, ...]:
    return tuple(math.sin(2 * math.pi * hertz * i / HERTZ) for i in range(HERTZ))


@lru_cache(maxsize=1)
def _hiss() -> tuple[float, ...]:
    rng = random.Random("hiss")
    return tuple(rng.uniform(-1, 1) for _ in range(4 * HERTZ))


def melody(index: int) -> tuple[int, int]:
    """The two tones of a vocabulary's word: up to 42 words that differ, none with the same tone twice."""
    # In steps of 5, which shares no factor with 42: neighbours in a vocabulary begin with different tones.
    first, second = divmod(5 * index % (len(TONES) * (len(TONES) - 1)), len(TONES) - 1)
    return TONES[first], TONES[second if second < first else second + 1]


def spoken(rng: random.Random, words: list[tuple[int, int]], noise: float = 0.05) -> str:
    """Base64 of a WAV file: each word two tones in a row, of varied length and loudness, with pauses and hiss."""
    samples: list[float] = [0.0] * int(HERTZ * rng.uniform(0.01, 0.03))
    for tones in words:
        loud, length = rng.uniform(0.5, 0.9), int(HERTZ * WORD_SECONDS / 2 * rng.uniform(0.95, 1.05))
        for tone in tones:
            start = rng.randrange(HERTZ // 2)
            samples += [loud * value for value in _sine(tone)[start : start + length]]
        samples += [0.0] * int(HERTZ * rng.uniform(0.02, 0.03))
    start = rng.randrange(HERTZ)
    # At most 0.9 of tone and 0.3 of hiss: 128 + 100 * 1.2 stays within a byte.
    levels = array("B", [int(128.5 + 100 * (a + noise * b)) for a, b in zip(samples, _hiss()[start:], strict=False)])
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(1)
        file.setframerate(HERTZ)
        file.writeframes(levels.tobytes())
    return base64.b64encode(buffer.getvalue()).decode()


def draw_digits(rng: random.Random) -> Row:
    """One to three digits."""
    said = [rng.randrange(10) for _ in range(rng.randint(1, 3))]
    return {"audio": spoken(rng, [melody(n) for n in said]), "text": " ".join(DIGIT_WORDS[n] for n in said)}


def draw_orders(rng: random.Random) -> Row:
    """A verb and a thing: `open door`."""
    verb, thing = rng.randrange(len(VERBS)), rng.randrange(len(THINGS))
    words = [melody(10 + verb), melody(20 + thing)]
    return {"audio": spoken(rng, words), "text": f"{VERBS[verb]} {THINGS[thing]}"}


def draw_letters(rng: random.Random) -> Row:
    """Two to four letters of the first eight, spelled."""
    said = [rng.randrange(8) for _ in range(rng.randint(2, 4))]
    return {"audio": spoken(rng, [melody(30 + n) for n in said]), "text": "".join("abcdefgh"[n] for n in said)}


def draw_hiss(rng: random.Random) -> Row:
    """One or two digits under six times the noise."""
    said = [rng.randrange(10) for _ in range(rng.randint(1, 2))]
    audio = spoken(rng, [melody(n) for n in said], noise=0.3)
    return {"audio": audio, "text": " ".join(DIGIT_WORDS[n] for n in said)}


# --- Texts to model -------------------------------------------------------------------------------------------------

ANIMALS, ADJECTIVES = ["cat", "dog", "bird", "hen", "owl", "horse"], ["small", "old", "quick", "brown", "shy"]
PLACES = ["in the garden", "near the river", "on the hill", "under the tree"]


def draw_grammar(rng: random.Random) -> Row:
    """Two sentences of a small grammar in which verbs agree with their subjects."""
    return {"text": " ".join(_sentence(rng) for _ in range(2))}


def _sentence(rng: random.Random) -> str:
    many = rng.random() < 0.5
    adjective = f"{rng.choice(ADJECTIVES)} " if rng.random() < 0.5 else ""
    subject = f"{'the' if many else 'a'} {adjective}{rng.choice(ANIMALS)}{'s' if many else ''}"
    verb = rng.choice(("see", "chase", "like")) + ("" if many else "s")
    place = f" {rng.choice(PLACES)}" if rng.random() < 0.4 else ""
    return f"{subject} {verb} the {rng.choice(ANIMALS)}{place} ."


def draw_series(rng: random.Random) -> Row:
    """Numbers that grow by a constant: the first two say all the others."""
    first, step = rng.randint(0, 300), rng.randint(1, 19)
    return {"text": " ".join(str(first + step * i) for i in range(8))}


def draw_brackets(rng: random.Random) -> Row:
    """Balanced brackets of three kinds around letters."""
    text, still_open = "", ""
    while len(text) < 30 or still_open:
        if still_open and (rng.random() < 0.5 or len(text) >= 30 or len(still_open) >= 4):
            text, still_open = text + still_open[-1], still_open[:-1]
        elif rng.random() < 0.5:
            kind = rng.choice(("()", "[]", "{}"))
            text, still_open = text + kind[0], still_open + kind[1]
        else:
            text += rng.choice("xyz")
    return {"text": text}


def draw_records(rng: random.Random) -> Row:
    """Lines of a register: name, town and year, each from a short list, and a sum that the line itself decides."""
    lines = []
    for _ in range(2):
        a, b = rng.randint(1, 9), rng.randint(1, 9)
        name, town = rng.choice(("anna", "boris", "carla", "denis")), rng.choice(("rome", "oslo", "lima"))
        lines.append(f"name={name};town={town};paid={a};owes={b};sum={a + b}")
    return {"text": "\n".join(lines)}


# --- The table and its rows -----------------------------------------------------------------------------------------

_BERT, _RESNET, _VIT = "postdoc/tiny-bert", "postdoc/tiny-resnet", "postdoc/tiny-vit"
_WHISPER, _GPT2 = "postdoc/tiny-whisper", "postdoc/tiny-gpt2"
_TONE = ("negative", "positive")

SENSE_TASKS: dict[str, SenseTask] = {
    task.name: task
    for task in (
        SenseTask("sentiment", "classify", "more praise or more blame", draw_sentiment, _BERT, "accuracy", 0.9, _TONE),
        SenseTask(
            "topic", "classify", "what a text is about", draw_topic, _BERT, "macro_f1", 0.9, tuple(sorted(TOPICS))
        ),
        SenseTask("negation", "classify", "praise or blame, negated", draw_negation, _BERT, "accuracy", 0.9, _TONE),
        SenseTask(
            "parity", "classify", "a word said an even or odd number of times", draw_parity, _BERT, "accuracy", 0.75,
            ("even", "odd"),
        ),
        SenseTask(
            "first", "classify", "the colour that is named first", draw_first, _BERT, "accuracy", 0.9,
            tuple(sorted(COLOURS)),
        ),
        SenseTask(
            "shapes", "vision", "circle, cross, square or triangle", draw_shapes, _RESNET, "accuracy", 0.9,
            ("circle", "cross", "square", "triangle"),
        ),
        SenseTask(
            "stripes", "vision", "the direction of stripes", draw_stripes, _RESNET, "accuracy", 0.9,
            ("diagonal", "grid", "horizontal", "vertical"),
        ),
        SenseTask(
            "numerals", "vision", "a digit of three pixels by five", draw_numerals, _RESNET, "accuracy", 0.9,
            tuple("0123456789"),
        ),
        SenseTask(
            "colours", "vision", "the colour of the larger blot", draw_colours, _VIT, "accuracy", 0.9,
            tuple(sorted(PALETTE)),
        ),
        SenseTask("dots", "vision", "how many dots", draw_dots, _RESNET, "accuracy", 0.85, tuple("1234")),
        SenseTask("digits", "speech", "one to three spoken digits", draw_digits, _WHISPER, "wer", 0.1),
        SenseTask("orders", "speech", "a spoken verb and thing", draw_orders, _WHISPER, "wer", 0.1),
        SenseTask("letters", "speech", "two to four spelled letters", draw_letters, _WHISPER, "cer", 0.1),
        SenseTask("hiss", "speech", "digits under noise", draw_hiss, _WHISPER, "wer", 0.15),
        SenseTask("grammar", "pretrain", "sentences of a small grammar", draw_grammar, _GPT2, "perplexity", 2.3),
        SenseTask("series", "pretrain", "arithmetic series", draw_series, _GPT2, "perplexity", 3.2),
        SenseTask("brackets", "pretrain", "balanced brackets", draw_brackets, _GPT2, "bits_per_byte", 2.0),
        SenseTask("records", "pretrain", "a register whose sums add up", draw_records, _GPT2, "bits_per_byte", 0.6),
    )
}  # fmt: skip


def content_of(row: Row) -> str:
    """What the split hashes: what is seen or heard, else what is read."""
    return row.get("image") or row.get("audio") or row["text"]


def examples(task: str, split: str, seed: int) -> Iterator[Row]:
    """Distinct rows of `split`, in an order that the seed decides. KeyError for an unknown task."""
    if split not in (TRAIN, *SPLITS):
        raise ValueError(f"{split!r} is no split; write {TRAIN}, {' or '.join(SPLITS)}")
    draw = SENSE_TASKS[task].draw
    rng = random.Random(f"{task}/{split}/{seed}")
    seen: set[str] = set()
    misses = 0
    while misses < MOST_MISSES:
        row = draw(rng)
        content = content_of(row)
        misses += 1
        if content not in seen and split_of(task, content) == split:
            seen.add(content)
            misses = 0
            yield row
    raise ValueError(f"{task} has about {len(seen)} rows of {split} and no more; ask for fewer")


def rows(task: str, split: str, n: int, seed: int) -> list[Row]:
    """`n` distinct rows of `split`: `train`, `dev` or `sealed`."""
    return list(islice(examples(task, split, seed), n))
