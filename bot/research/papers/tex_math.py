"""Formulas as plain text: `2\\times 10^{-5}` becomes `2 × 10^-5`, `\\beta_{1}` becomes `β1`."""

from __future__ import annotations

import re

SYMBOLS = {
    "times": " × ", "cdot": " · ", "pm": " ± ", "sim": "~", "approx": "≈", "simeq": "≈", "leq": " ≤ ", "le": " ≤ ",
    "geq": " ≥ ", "ge": " ≥ ", "neq": " ≠ ", "ne": " ≠ ", "in": " ∈ ", "to": " → ", "rightarrow": " → ",
    "longrightarrow": " → ", "Rightarrow": " → ", "infty": "∞", "ldots": "…", "dots": "…", "cdots": "…", "ll": " << ",
    "gg": " >> ", "mid": " | ", "vert": "|", "ell": "ℓ", "sum": "Σ", "prod": "Π", "log": "log", "exp": "exp",
    "alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "epsilon": "ε", "varepsilon": "ε", "eta": "η",
    "theta": "θ", "lambda": "λ", "mu": "μ", "pi": "π", "rho": "ρ", "sigma": "σ", "tau": "τ", "phi": "φ",
    "omega": "ω", "psi": "ψ", "zeta": "ζ", "kappa": "κ", "nu": "ν", "xi": "ξ", "chi": "χ", "Delta": "Δ",
    "Sigma": "Σ", "Omega": "Ω", "Theta": "Θ", "Phi": "Φ", "Pi": "Π", "Lambda": "Λ", "checkmark": "✓", "cmark": "✓",
    "xmark": "✗", "quad": " ", "qquad": " ", "colon": ":", "ast": "*", "star": "*", "dagger": "†", "ddagger": "‡",
    "uparrow": "↑", "downarrow": "↓", "lbrace": "{", "rbrace": "}", "langle": "<", "rangle": ">", "circ": "°",
    "textasciitilde": "~", "textbackslash": "\\", "textless": "<", "textgreater": ">", "textbar": "|",
    "texttimes": " × ", "textminus": "-", "textendash": "–", "textemdash": "—", "ss": "ß", "o": "ø", "ae": "æ",
    "i": "ı", "l": "ł", "S": "§", "P": "¶", "copyright": "©", "LaTeX": "LaTeX", "TeX": "TeX", "percent": "%",
}  # fmt: skip
# Commands that only say how their argument looks.
_LOOKS = (
    "mathrm|mathit|mathbf|mathsf|mathtt|mathcal|mathbb|mathfrak|boldsymbol|bm|text|textrm|textit|textbf|textsf|texttt|"
    "textsc|textnormal|operatorname\\*?|mathop|mbox|hbox|emph|ensuremath|mathnormal|textup|textmd|underline|overline|"
    "hat|bar|tilde|widetilde|widehat|vec|num|mathord|mathbin|mathrel|phantom"
)
_LOOK = re.compile(rf"\\(?:{_LOOKS})\s*\{{([^{{}}]*)\}}")
_FRACTION = re.compile(r"\\[tdc]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}")
_SHORT_FRACTION = re.compile(r"\\[tdc]?frac\s*(\d)\s*(\d)")
_POWER = re.compile(r"\^\s*\{([^{}]*)\}")
_INDEX = re.compile(r"_\s*(?:\{([^{}]*)\}|([A-Za-z0-9]))")
_LETTERS = "|".join(name for name, sign in SYMBOLS.items() if len(sign) == 1 and sign.isalpha() and len(name) > 1)
_GREEK = re.compile(rf"\\({_LETTERS})(?![A-Za-z])")
_COMMAND = re.compile(r"\\([A-Za-z]+)\*?\s?")
_MINUS = re.compile("[−‐‑]")


def math_text(formula: str) -> str:
    """A TeX formula in one line of plain text; what it does not know is left out."""
    text = formula.replace("\\left", "").replace("\\right", "").replace("\\displaystyle", "")
    text = re.sub(r"\\[,;:!> ]|~", " ", text)
    text = text.replace("\\%", "%").replace("\\&", "&").replace("\\#", "#").replace("\\$", "$").replace("\\_", "_")
    text = re.sub(r"\{,\}", ",", text)  # 10{,}000
    text = text.replace("\\{", "⦃").replace("\\}", "⦄")
    text = _GREEK.sub(lambda found: SYMBOLS[found[1]], text)
    for _ in range(8):  # formulas are nested a few deep
        before = text
        text = _LOOK.sub(r"\1", text)
        text = _SHORT_FRACTION.sub(r"\1/\2", _FRACTION.sub(r"\1/\2", text))
        text = _POWER.sub(lambda found: "^" + found[1].strip().replace(" ", ""), text)
        text = _INDEX.sub(_index, text)
        text = re.sub(r"\{([^{}\\]*)\}", r"\1", text)
        if text == before:
            break
    text = _COMMAND.sub(lambda found: SYMBOLS.get(found[1], " "), text)
    text = text.replace("{", "").replace("}", "").replace("⦃", "{").replace("⦄", "}").replace("\\", " ")
    return plain(text)


def _index(found: re.Match[str]) -> str:
    """`β1` of `\\beta_1`; an index that is a word keeps its line, `ε_low`."""
    said = (found[1] if found[1] is not None else found[2]).strip()
    return f"_{said}" if re.fullmatch(r"[A-Za-z]{2,}", said) else said


def plain(text: str) -> str:
    """One line: every kind of space is a space, and every kind of minus one that a number can be read with."""
    text = _MINUS.sub("-", text).replace("\u00ad", "").replace("\u200b", "").replace("\u2062", "").replace("\u2061", "")
    return " ".join(text.split())
