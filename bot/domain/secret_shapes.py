"""What a secret looks like: shapes that tell by themselves, and shapes that tell by the name before them.

Every pattern takes linear time: a part that may be long is possessive, or cannot begin in the middle of itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_WORD = r"[A-Za-z0-9_\-]"
_MIXED = r"(?=[A-Za-z0-9]{0,60}[0-9])(?=[A-Za-z0-9]{0,60}[a-z])(?=[A-Za-z0-9]{0,60}[A-Z])"
_CASES = r"(?=[A-Za-z]{0,60}[a-z])(?=[A-Za-z]{0,60}[A-Z])"
# Between the lines of a key: line breaks, also escaped ones, quotation marks and commas of a list of lines.
_SEPARATOR = r"(?:[\s\"',+|>]|\\[nrt\"])"
_HEADER = r"(?:Proc-Type|DEK-Info|Version|Comment): [^\n\\]{1,80}"
_KEY_BODY = rf"(?:{_SEPARATOR}++|{_HEADER}|[A-Za-z0-9+/=]{{8,}}+|[A-Za-z0-9+/=]{{1,7}}(?={_SEPARATOR}*+-----END))*+"

_NAME = (
    r"(?i:(?:api[_-]?key|access[_-]?token|auth[_-]?token|client[_-]?secret|webhook[_-]?secret|secret[_-]?key|password"
    r"|passwd))"
)


@dataclass(frozen=True, slots=True)
class Shape:
    """A pattern; its group `secret`, where it has one, is what must go."""

    pattern: re.Pattern[str]
    hints: tuple[str, ...]
    """Lower case. A text without any of them has no such secret, which is found out much faster than by the pattern."""
    length: int = 0
    """Characters of the whole secret where they are always as many; else 0."""
    splits: bool = True
    """Recognised also when a line break parts it."""


def _shape(pattern: str, *hints: str, length: int = 0, splits: bool = True) -> Shape:
    return Shape(re.compile(pattern), hints, length, splits)


SHAPES: tuple[Shape, ...] = (
    # A PEM block, also one whose end or first dashes were cut off or whose line breaks were escaped.
    _shape(
        rf"-{{0,5}}BEGIN [A-Z0-9 ]{{0,40}}PRIVATE KEY(?: BLOCK)?-{{1,5}}{_KEY_BODY}"
        r"(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----)?",
        "private key",
        splits=False,
    ),
    # The same without its first line: how the DER of RSA, EC, Ed25519 and OpenSSH keys begins.
    _shape(
        r"(?<![A-Za-z0-9+/])(?:MII[A-Za-z0-9+/]{2}[AQgw]IBA[AD]|MHcCAQEE|MIGHAgEAMB|MC4CAQAwBQYDK2Vw"
        rf"|b3BlbnNzaC1rZXktdjE)[A-Za-z0-9+/]{{8,}}+(?:{_SEPARATOR}{{1,8}}+[A-Za-z0-9+/=]{{16,}}+)*+",
        "mii", "mhccaqee", "mighagea", "mc4caqaw", "b3blbnnza",
        splits=False,
    ),
    # GitHub: 36 characters, and since 2026 `ghs_<app id>_<JWT>` of about 520 characters with dots in it.
    # https://docs.github.com/en/authentication/keeping-your-account-and-data-secure/about-authentication-to-github
    _shape(rf"(?<![A-Za-z0-9])gh[pousr]_[A-Za-z0-9_]{{16,}}+(?:[.\-]{_WORD}++)*+", "ghp_", "gho_", "ghu_", "ghs_",
           "ghr_", length=40),
    _shape(
        rf"[hpousr](?<![A-Za-z0-9_][hpousr])(?:(?<=h)[pousr])?_{_MIXED}[A-Za-z0-9]{{36}}(?![A-Za-z0-9_])",
        "p_", "o_", "u_", "s_", "r_", splits=False,
    ),
    _shape(r"github_pat_[A-Za-z0-9_]{20,}+", "github_pat_", length=93),
    _shape(r"[a-z]{0,6}_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{40,}+", "_pat_", splits=False),
    # Hugging Face: https://huggingface.co/docs/hub/security-tokens
    _shape(r"(?<![A-Za-z0-9])hf_[A-Za-z0-9]{20,}+", "hf_", length=37),
    _shape(rf"f_(?<![A-Za-z0-9_]f_){_CASES}[A-Za-z]{{34}}(?![A-Za-z0-9_])", "f_", splits=False),
    _shape(r"api_org_[A-Za-z0-9]{20,}+", "api_org_", length=42),
    # Anthropic and OpenAI; `sk-` alone begins ordinary names too, so what follows has to look drawn by lot.
    _shape(rf"sk-(?:ant|proj|or|svcacct|admin)-{_WORD}{{20,}}+", "sk-"),
    _shape(rf"(?<!{_WORD})sk-(?=[a-zA-Z]{{0,60}}[0-9])[A-Za-z0-9]{{24,}}+", "sk-"),
    _shape(rf"ant-(?:api|admin|sid|oat)[0-9]{{2}}-{_WORD}{{20,}}+", "ant-"),
    # AWS: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html
    _shape(r"(?<![A-Za-z0-9])(?:A?KIA|A?SIA|AGPA|AIDA|AROA)[A-Z0-9]{16}(?![A-Za-z0-9])", "kia", "sia", "agpa", "aida",
           "aroa", length=20),
    _shape(
        r"(?:A?KIA|A?SIA)[A-Z0-9]{16}(?![A-Za-z0-9/+])(?:[^\n]{0,60}\n)?[^\n]{0,60}?(?<![A-Za-z0-9/+])"
        r"(?![0-9a-f]{40})(?P<secret>[A-Za-z0-9/+]{40})(?![A-Za-z0-9/+=])", "kia", "sia",
    ),
    _shape(r"(?<![A-Za-z0-9_\-])A?Iza[A-Za-z0-9_\-]{35}", "iza", length=39),
    _shape(rf"(?<![A-Za-z0-9])(?:ya29\.|GOCSPX-){_WORD}{{20,}}+", "ya29.", "gocspx-"),
    _shape(r"xox[abeoprs]-[A-Za-z0-9-]{10,}+", "xox"),
    _shape(r"xapp-[0-9]-[A-Za-z0-9-]{10,}+", "xapp-"),
    _shape(r"[0-9]{10,13}-[0-9]{10,13}-[A-Za-z0-9]{20,}+", "-"),
    _shape(r"hooks\.slack\.com/services/(?P<secret>[A-Za-z0-9/]{20,}+)", "hooks.slack.com"),
    _shape(rf"glpat-{_WORD}{{20,}}+", "glpat-"),
    _shape(r"(?<![A-Za-z0-9])npm_[A-Za-z0-9]{36}", "npm_", length=40),
    _shape(rf"pypi-AgE{_WORD}{{30,}}+", "pypi-age"),
    _shape(r"(?<![A-Za-z0-9])[rs]k_live_[A-Za-z0-9]{16,}+", "k_live_"),
    _shape(r"wandb_v[0-9]_[A-Za-z0-9_]{40,}+", "wandb_v"),
    # A JWT; without its beginning too, because the payload is JSON as well, so it begins with `eyJ` like the header.
    _shape(rf"(?<!{_WORD})eyJ{_WORD}{{5,}}+(?:\.{_WORD}{{5,}}+){{1,4}}", "eyj"),
    _shape(rf"(?<!{_WORD}){_WORD}{{4,}}+\.eyJ{_WORD}{{5,}}+(?:\.{_WORD}{{5,}}+){{1,4}}", "eyj", splits=False),
    # From here on the name before it tells.
    _shape(
        r"(?i:wandb|w&b|weights\s{0,3}(?:and|&)\s{0,3}biases)(?i:(?!commit|sha|revision)[^\n]){0,60}?"
        r"(?<![0-9a-f])(?P<secret>[0-9a-f]{40}(?:[0-9a-f]{46})?)(?![0-9a-f])",
        "wandb", "w&b", "biases",
    ),
    _shape(r"(?i:aws_?secret_?(?:access_?)?key)[\"'\s:=]{1,6}(?P<secret>[A-Za-z0-9/+=]{40})", "aws"),
    _shape(
        r"(?i:\b(?:proxy-)?authorization[\"']?\s{0,4}[:=]\s{0,4}[\"']?(?:bearer|basic|token)\s{1,4})"
        r"(?P<secret>[A-Za-z0-9._~+/=\-]{8,}+)",
        "authorization",
        splits=False,
    ),
    # A value in quotation marks; or without, then with a digit in it and no call, because code looks like that too.
    _shape(
        rf"{_NAME}[\"'\\]{{0,2}}\s{{0,4}}[:=]\s{{0,4}}\\?[\"'](?!\[redacted|\$\{{|<|root:)"
        r"(?P<secret>[^\s\"'\\]{8,}+)(?=\\?[\"'])",
        "api", "access", "auth", "secret", "passw",
        splits=False,
    ),
    _shape(
        rf"{_NAME}[\"']?\s{{0,4}}[:=]\s{{0,4}}(?!\[redacted|\$\{{|<|[\w.]{{0,80}}[(\[])"
        r"(?=[^\s\"',;`]{0,200}[0-9])(?P<secret>[^\s\"',;`]{7,}[^\s\"',;`)\]}])",
        "api", "access", "auth", "secret", "passw",
        splits=False,
    ),
    _shape(
        r"\bmachine\s{1,4}\S{1,200}\s{1,4}login\s{1,4}\S{1,200}\s{1,4}password\s{1,4}(?P<secret>\S{6,}+)",
        "machine",
    ),
    # The password in a URL; across a line break only where the scheme is a database's.
    _shape(r"://[^\s/@:]{0,100}:(?!\$\{|<|\*{3}|\[redacted)(?P<secret>[^\s/@\\]{3,}+)(?=@)", "://", splits=False),
    _shape(
        r"(?:postgres(?:ql)?|mysql|mariadb|mongodb|rediss?|amqps?)[a-z+]{0,12}://[^\s/@:]{0,100}:"
        r"(?!\$\{|<|\*{3}|\[redacted)(?P<secret>[^\s/@\\]{3,}+)(?=@)",
        "://",
    ),
)  # fmt: skip


def shape_spans(text: str, *, split: bool = False) -> Iterator[tuple[int, int, Shape]]:
    """Where in `text` a secret stands. With `split` only the shapes that are looked for across a line break."""
    lowered = text.lower()
    for shape in SHAPES:
        if (split and not shape.splits) or not any(hint in lowered for hint in shape.hints):
            continue
        group = "secret" if "secret" in shape.pattern.groupindex else 0
        for match in shape.pattern.finditer(text):
            yield (*match.span(group), shape)
