"""Hyperparameters that are words: schedule, optimizer, precision, packing, adapters' places, hardware."""

from __future__ import annotations

import re
from collections.abc import Iterator

from bot.research.papers.findings import Value
from bot.research.papers.numbers import number_at

_SCHEDULES = {
    "cosine": "cosine",
    "linear": "linear",
    "linearly": "linear",
    "constant": "constant",
    "polynomial": "polynomial",
    "inverse square root": "inverse_sqrt",
    "inverse-square-root": "inverse_sqrt",
    "wsd": "warmup_stable_decay",
    "warmup-stable-decay": "warmup_stable_decay",
    "warmup stable decay": "warmup_stable_decay",
    "trapezoidal": "warmup_stable_decay",
}
_KIND = "cosine|linear|constant|polynomial|inverse[- ]square[- ]root|WSD|warm-?up[-–— ]+stable[-–— ]+decay|trapezoidal"
_SCHEDULE = (
    re.compile(
        rf"\b(?P<kind>{_KIND})(?:[- ](?:learning[- ]rate|lr|LR))?(?:[- ](?:decay(?:ing)?|"
        r"annealing))?(?:[- ](?:learning[- ]rate|lr|LR))?[- ](?:schedul(?:e|er|ing)s?|"
        r"decay(?:ing)?|annealing|learning[- ]rate)\b(?! warm)",
        re.IGNORECASE,
    ),
    re.compile(
        r"\b(?:learning[- _]rate|LR|lr)[- _](?:schedul(?:e|er|ing)|decay)(?:[ _]type)?\s*(?:is|"
        rf"was|of|=|:|to|,|set to|\(|follows|as)?\s*(?:an? )?[“\"'`]?(?P<kind>{_KIND})\b(?![- ]warm)",
        re.IGNORECASE,
    ),
    re.compile(
        r"\b(?P<kind>linear)ly (?:decay(?:s|ed|ing)?|anneal(?:s|ed|ing)?)\b|\b(?:decay(?:s|"
        r"ed|ing)?|anneal(?:s|ed|ing)?) (?P<other>linear)ly\b",
        re.IGNORECASE,
    ),
    re.compile(
        rf"\b(?:decay(?:s|ed|ing)?|anneal(?:s|ed|ing)?)\b[^.,;]{{0,40}}?\b(?:with|"
        rf"following|using|by|according to|on|via|under) an? (?P<kind>{_KIND})\b(?![- ]warm)",
        re.IGNORECASE,
    ),
    re.compile(
        r"\b(?P<kind>cosine)\b(?= with (?:warm|a peak|\d))|\bschedul(?:e|er)\s*[:=(]\s*(?P<other>cosine|"
        r"linear|constant)\b",
        re.IGNORECASE,
    ),
    re.compile(
        r"\b(?:rate|LR)\b(?: of this \w+)?(?: [^.;,]{0,30}?)?(?: is|,| was| stays| remains)? (?:kept |held )?"
        r"(?P<kind>constant)\b(?= (?:after|at|throughout|from|for|during)|[,.;]|\Z)",
        re.IGNORECASE,
    ),
    re.compile(
        rf"\b(?:[Rr]ate|LR)\b[^.;]{{0,60}}\bfollow(?:s|ing|ed)? an? (?P<kind>{_KIND})\b(?![- ]warm)", re.IGNORECASE
    ),
    re.compile(
        rf"\b(?:[Rr]ate|LR)\b[^.;]{{0,80}}\b(?:falls?|falling|decreas\w+|declin\w+|decay\w*|goes|drops|returns?) "
        rf"(?:(?:back |down )?to (?:zero|0) )?(?:along|following|on|as|in|with|by) an? (?P<kind>{_KIND})\b",
        re.IGNORECASE,
    ),
    re.compile(
        r"\b(?:[Rr]ate|LR)\b[^.;]{0,80}\b(?:falls?|falling|decreas\w+|declin\w+|decay\w*|goes|drops|returns?) "
        r"(?:(?:back |down )?to (?:zero|0) )?(?P<kind>linearly)\b",
        re.IGNORECASE,
    ),
)
_OPTIMIZER = re.compile(
    r"\b(?P<bits>(?:8-bit|paged|paged 8-bit|8-bit paged|fused) )?(?P<name>AdamW|"
    r"Adam|Adafactor|SGD|Lion|Muon|RMSProp|Sophia|LAMB|SOAP)(?P<eight>[- ]?\(8[- ]?bit\)|"
    r"[- ]?8[- ]?bit)?(?!\w)(?![- ](?:Newton|"
    r"et al))"
)
_PRECISION = re.compile(
    r"\b(?P<bf>bf16|bfloat16|BFloat16|BF16)\b|\b(?P<fp>fp16|float16|FP16|half[- ]precision)\b|"
    r"\b(?P<f32>fp32|FP32|float32|full[- ]precision)\b",
    re.IGNORECASE,
)
_FLAGS = (
    (
        "packing",
        re.compile(
            r"\b(?:(?:sequence|sample|example|multi-?pack)[- ]packing|(?:use|with|enable|"
            r"apply|using|enabling|and) packing|(?:are|is) packed (?:into|to)|packing "
            r"(?:is|was) (?:used|enabled|applied)|we pack|of packed (?:documents|examples|sequences|dialogues|"
            r"texts)|pack (?:\w+ ){1,3}(?:in)?to|"
            r"\Apacking(?=\s*[:=] ?true))\b",
            re.IGNORECASE,
        ),
    ),
    (
        "gradient_checkpointing",
        re.compile(r"\b(?:gradient|activation)[- _]checkpointing\b(?!\s*[:=] ?false)", re.IGNORECASE),
    ),
)
_MODULES = (
    (
        re.compile(
            r"\ball (?:the )?(?:of the )?(?:linear|dense|fully[- ]connected) (?:layers?|"
            r"modules?|projections?|transformations?|weights|matrices)\b|\ball-linear\b",
            re.IGNORECASE,
        ),
        "all-linear",
    ),
    (
        re.compile(
            r"\b(?:query,? (?:and )?key,? (?:and )?value,? and (?:output|o)|q(?:_proj)?, "
            r"?k(?:_proj)?, ?v(?:_proj)?,? ?(?:and )?o(?:_proj)?)\b(?: proj\w+)?(?! "
            r"?, ?gate)",
            re.IGNORECASE,
        ),
        "q_proj,k_proj,v_proj,o_proj",
    ),
    (
        re.compile(
            r"\b(?:query and value|q_proj and v_proj|q_proj, ?v_proj|Wq and Wv|Q and "
            r"V)\b(?: (?:projection|matri|weight|layer|module)\w*)?",
            re.IGNORECASE,
        ),
        "q_proj,v_proj",
    ),
)
_NOT_USED = re.compile(
    r"\b(?:no|not|without|never|disabl\w+|off|instead of|rather than)\b[^,;.]{0,40}\Z", re.IGNORECASE
)
_GPU = (
    r"(?:A100|H100|H800|H200|H20|A800|V100|A6000|A40|A10G?|L40S?|L4|T4|B200|"
    r"GB200|GH200|MI250X?|MI300X?|RTX ?\d{4}(?: ?Ti)?|RTX A\d{4}|TPU ?v\d\w*(?:-\d+)?|"
    r"P100|Gaudi ?\d)"
)
_HARDWARE = re.compile(
    rf"(?:NVIDIA |Nvidia |AMD |Tesla |GeForce |Google )*(?P<gpu>{_GPU})(?:[- ](?:SXM\d?|"
    rf"PCIe|NVL))?(?:[- ]?\(?(?P<memory>\d{{2,3}}) ?GB?\)?)?(?:[- ](?:SXM\d?|"
    r"PCIe))?"
)
_COUNT_BEFORE = re.compile(
    r"(?P<number>\d[\d,]*|one|a single|single|two|four|eight|sixteen)\s*(?:[×x]\s*)?(?:(?:\d{2,3} "
    r"?GB )|(?:NVIDIA |Nvidia |AMD |Tesla |GeForce |Google ))*\Z"
)
_NODES = re.compile(
    r"(?P<nodes>\d+|one|a single|two|four|eight|sixteen) (?:(?:compute |GPU "
    r"|\w+ )?nodes?|machines?|servers?)\b(?: (?:of|with|each with|each having|"
    r"containing|equipped with)|,| \()\s*(?:each (?:with|having|containing) "
    r")?\Z"
)
_COUNTS = {"one": 1, "a single": 1, "single": 1, "two": 2, "four": 4, "eight": 8, "sixteen": 16}
_GPU_HOURS = re.compile(
    r"(?P<number>\d[\d,]*(?:\.\d+)?)(?P<k>k)? (?:(?:A|H|V)\d{2,3}[- ])?(?:GPU|TPU)[- ]?(?:hours|hrs|h)\b"
)
_DURATION = re.compile(
    r"(?:\b(?:takes?|took|lasts?|lasted|complet\w+ in|finish\w* in|train\w*[^.;]{0,80}? "
    r"for|training time (?:is|was|of)|(?:runs?|ran) (?:for|in)|requires?|required|"
    r"wall-?clock (?:time )?(?:of|is|was))\s*(?:us )?(?:about|approximately|"
    r"around|roughly|only|~|≈|∼|nearly)?\s*)"
    r"(?P<number>\d+(?:\.\d+)?|one|two|three|six|twelve)\s*(?P<unit>hours?|hrs?|h|days?|minutes?|min)\b",
    re.IGNORECASE,
)


_OTHER_SCHEDULE = re.compile(
    r"\b(?:temperature|KL\b[\w -]{0,20}|penalty|bonus|entropy|coefficient|share|ratio|proportion|curriculum|"
    r"difficulty|margin|"
    r"momentum|dropout|noise|mask\w*|length|batch size|weight|reward|β|threshold)(?: (?:of|for|"
    r"on) [\w ]{1,30}?)? (?:\w+ly )?"
    r"(?:follows?|followed|decays?|decayed|is|are|was|were|grows?|rises?|falls?|increases?|decreases?|declines?|drops?|"
    r"anneals?|annealed)\b",
    re.IGNORECASE,
)
_OF_THE_RATE = re.compile(r"\b(?:learning[- ]rate|rate|LR|lr|warm-?\s?up|AdamW?|peak)\b")


def of_something_else(sentence: str, at: int) -> bool:
    """`The temperature follows a cosine`: a schedule, or a warm-up, of something else than the learning rate."""
    lead = re.split(r"[;,]\s", sentence[: at + 12])[-1]
    return _OTHER_SCHEDULE.search(lead) is not None and _OF_THE_RATE.search(lead) is None


def words_in(sentence: str) -> Iterator[tuple[str, Value, int]]:
    """(key, value, place) of everything in a sentence that is said in words."""
    yield from _schedule(sentence)
    yield from _optimizer(sentence)
    # Weights that are kept in one precision and computed with in another are trained in the latter.
    mixed = len({bool(found["f32"]) for found in _PRECISION.finditer(sentence)}) > 1
    for found in _PRECISION.finditer(sentence):
        if mixed and found["f32"]:
            continue
        if re.match(r"\s*[:=] ?false", sentence[found.end() :], re.IGNORECASE):
            continue
        if _NOT_TRAINED_IN.search(sentence) and not re.search(
            r"\b(?:[Pp]arameters|[Ww]eights|[Cc]omput|[Tt]rain)", sentence
        ):
            continue
        if not _evaluated(sentence) and not re.search(r"\b(?:serv|stor|quanti[sz])\w*", sentence):
            yield "precision", "bf16" if found["bf"] else "fp16" if found["fp"] else "fp32", found.start()
    for key, pattern in _FLAGS:
        for found in pattern.finditer(sentence):
            if not _NOT_USED.search(sentence[: found.start()]) and not re.match(
                r"[^,;.]{0,25}\b(?:disabled|not used|off)\b", sentence[found.end() :]
            ):
                yield key, True, found.start()
    if re.search(r"LoRA|low-rank|adapters?", sentence):
        for pattern, modules in _MODULES:
            if (named := pattern.search(sentence)) is not None:
                yield "lora_target_modules", modules, named.start()
                break
    yield from _hardware(sentence)


_NOT_TRAINED_IN = re.compile(
    r"\b(?:reference (?:model|policy)|reduc\w+|all-?reduce|roll-?outs?|generated|generation|judge|vLLM|SGLang|"
    r"optimi[sz]er "
    r"states?|master|logits|softmax|teacher|reward model (?:is|runs)|critic|embeddings?)\b"
    r"(?![^.;]*\b(?:training|trained|train)\b)",
    re.IGNORECASE,
)
_OFF = re.compile(
    r"\b(?P<name>weight decay|warm-?up)\b (?:is|was|are|were) (?:(?:left|turned|switched|set) )?"
    r"(?:disabled|off|not (?:used|applied)|zero|to zero|at zero)\b",
    re.IGNORECASE,
)
_ABSENT = re.compile(
    r"\b(?:no|without(?: any)?)\s+(?:learning[- ]rate\s+)?(?P<first>warm-?up|"
    r"weight decay)\b(?: steps)?(?:\s*(?:,|and|or|nor)\s+(?:no\s+|without\s+)?(?P<second>warm-?up|"
    r"weight decay)\b)?",
    re.IGNORECASE,
)


_NO_KL = re.compile(
    r"\b(?:(?:no|without(?: an?y?)?|do(?:es)? not (?:use|apply|add|include)(?: an?y?)?|did not (?:use|apply|"
    r"add)(?: an?y?)?)\s+|"
    r"(?:remove|drop|omit|disable)[sd]?(?:ped|ted)? (?:the )?)KL (?:penalty|term|regulari[sz]ation|loss|"
    r"divergence|constraint)\b",
    re.IGNORECASE,
)


# `no weight decay on biases`; `Without a KL penalty, entropy falls` tells what would be.
_OF_A_PART = re.compile(
    r"\s*(?:is |are )?(?:applied |used )?(?:for|on|to|in)\s(?:the |any )?(?:bias\w*|norm\w*|embedding\w*|"
    r"layer|gains?|adapters?|"
    r"LoRA|heads?|router|vectors?|scal\w+|one-dimensional|1-?D)\b",
    re.IGNORECASE,
)
_CONSEQUENCE = re.compile(r"\W*Without\b(?![^.;]*\b(?:we|our)\b)|\W*No\b(?![^.;]*\b(?:used|applied|needed|employed)\b)")


_UNPACKED = re.compile(
    r"\b(?:do|did) not (?:use |apply )?(?:sequence |sample )?pack(?:ing)?\b(?! (?:across|more|up))|"
    r"\b[Pp]acking (?:is|was) (?:not (?:used|applied)|"
    r"disabled|off)\b|\bwithout (?:sequence |sample )?packing\b"
)


def absent_in(sentence: str) -> Iterator[tuple[str, Value, int]]:
    """What is said not to be there, as the value that means so: `no weight decay` is 0."""
    for found in _ABSENT.finditer(sentence):
        if _OF_A_PART.match(sentence, found.end()) or _CONSEQUENCE.match(sentence):
            continue
        for name in (found["first"], found["second"]):
            if name:
                yield ("weight_decay" if name.lower().startswith("weight") else "warmup_steps"), 0, found.start()

    for found in _NO_KL.finditer(sentence):
        if _CONSEQUENCE.match(sentence):
            continue
        yield "beta", 0, found.start()
    for found in _UNPACKED.finditer(sentence):
        yield "packing", False, found.start()
    for found in _OFF.finditer(sentence):
        yield ("weight_decay" if found["name"].lower().startswith("weight") else "warmup_steps"), 0, found.start()


def _evaluated(sentence: str) -> bool:
    return bool(re.search(r"\bevaluat|\binference\b", sentence, re.IGNORECASE)) and not re.search(
        r"\btrain", sentence, re.IGNORECASE
    )


def _schedule(sentence: str) -> Iterator[tuple[str, Value, int]]:
    found: dict[int, str] = {}
    for pattern in _SCHEDULE:
        for match in pattern.finditer(sentence):
            kind = match["kind"] or match.groupdict().get("other") or ""
            # `linear warmup` says how it begins, not how it goes on.
            if _NOT_USED.search(sentence[: match.start()]) or re.match(r"[- ]warm", sentence[match.end() :]):
                continue
            if of_something_else(sentence, match.start()):
                continue
            plain = re.sub(r"[-–— ]+", " ", kind.lower().replace("warm-up", "warmup"))
            found[match.start()] = _SCHEDULES[plain]
    named = set(found.values())
    # A linear warm-up into a cosine decay is a cosine schedule; otherwise two names are two schedules.
    if len(named) == 1:
        yield "lr_scheduler_type", next(iter(named)), min(found)
    elif len(named) > 1:
        yield from (("lr_scheduler_type", kind, at) for at, kind in found.items())


def _optimizer(sentence: str) -> Iterator[tuple[str, Value, int]]:
    names = list(_OPTIMIZER.finditer(sentence))
    for found in names:
        if _NOT_USED.search(sentence[: found.start()]):
            continue
        if found["name"] in {"SGD", "Lion", "SOAP", "Adam", "LAMB"} and not re.search(
            r"optimi[sz]|with|using|use", sentence, re.IGNORECASE
        ):
            continue
        if (
            not found["eight"]
            and not found["bits"]
            and re.search(r"\b(?:8|eight)[- ]?bits?\b", sentence[found.end() : found.end() + 25])
        ):
            continue
        bits = "8bit" if found["eight"] or "8-bit" in (found["bits"] or "") else ""
        paged = "paged_" if "paged" in (found["bits"] or "") else ""
        yield "optim", paged + found["name"].lower() + ("_8bit" if bits else ""), found.start()


def _hardware(sentence: str) -> Iterator[tuple[str, Value, int]]:
    if _evaluated(sentence) or re.search(r"\bserv(?:e|ed|ing)\b|\breward server|\bvLLM server|\bjudge", sentence):
        return
    for found in _HARDWARE.finditer(sentence):
        before = sentence[: found.start()]
        if re.match(r"[- ](?:GPU[- ])?(?:hours|hrs)\b", sentence[found.end() :]):
            continue
        count = _COUNT_BEFORE.search(before)
        if count is None:
            continue
        number = _COUNTS.get(count["number"]) or int(count["number"].replace(",", ""))
        nodes = _NODES.search(before[: count.start()])
        factor = (_COUNTS.get(nodes["nodes"]) or int(nodes["nodes"])) if nodes else 1
        yield "gpu_count", number * factor, found.start()
        yield "gpu_type", re.sub(r"\s+", " ", found["gpu"]), found.start()
    for found in _GPU_HOURS.finditer(sentence):
        yield "gpu_hours", float(found["number"].replace(",", "")) * (1000 if found["k"] else 1), found.start()
    if re.search(r"\btrain|\bfine-?tun|\brun\b|\bSFT\b|\bDPO\b|\bGRPO\b", sentence, re.IGNORECASE):
        for found in _DURATION.finditer(sentence):
            said = number_at(sentence, found.start("number"))
            unit = found["unit"][0].lower()
            if said is not None:
                hours = said.value * {"h": 1.0, "d": 24.0, "m": 1 / 60}[unit]
                yield "training_hours", round(hours, 4), found.start()
