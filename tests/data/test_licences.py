from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.data.licences import Licence, find_licence, licence_gate, licence_of_card, licence_of_text, normalise_licence


@pytest.mark.parametrize(
    ("written", "identifier"),
    [
        ("Apache-2.0", "apache-2.0"),
        ("Apache License, Version 2.0", "apache-2.0"),
        ("apache 2.0", "apache-2.0"),
        ("The MIT License", "mit"),
        ("CC BY 4.0", "cc-by-4.0"),
        ("cc-by-sa-4.0", "cc-by-sa-4.0"),
        ("Creative Commons Attribution-NonCommercial 4.0 International", "cc-by-nc-4.0"),
        ("Creative Commons Attribution Share Alike 4.0", "cc-by-sa-4.0"),
        ("https://creativecommons.org/licenses/by-nc-sa/4.0/", "cc-by-nc-sa-4.0"),
        ("https://www.apache.org/licenses/LICENSE-2.0", "apache-2.0"),
        ("GNU General Public License v3.0", "gpl-3.0"),
        ("GPLv3", "gpl-3.0"),
        ("BSD 3-Clause License", "bsd-3-clause"),
        ("CC0 1.0 Universal", "cc0-1.0"),
        ("Llama 3.1 Community License", "llama3.1"),
        ("llama3", "llama3"),
        ("MIT OR Apache-2.0", "mit or apache-2.0"),
        ("my own terms", "my own terms"),
        ("unknown", None),
        ("Other", None),
        ("", None),
        (None, None),
    ],
)
def test_spellings_are_normalised(written, identifier):
    assert normalise_licence(written) == identifier


@given(st.text(max_size=60))
def test_normalising_twice_changes_nothing(text):
    once = normalise_licence(text)
    assert normalise_licence(once) == once


@pytest.mark.parametrize(
    ("card", "identifier"),
    [
        ("---\nlicense: apache-2.0\ntags: [x]\n---\n# Title\n", "apache-2.0"),
        ("\ufeff---\r\nlicense: MIT\r\n---\r\ntext", "mit"),
        ("---\nlicense:\n- mit\n- cc-by-4.0\n---\n", "mit and cc-by-4.0"),
        ("---\nlicense:\n- mit\n- unknown\n---\n", None),
        ("---\nlicense: other\nlicense_name: qwen-research\n---\n", "qwen-research"),
        ("---\nlicense: other\n---\n", None),
        ("---\nlanguage: en\n---\n", None),
        ("---\nlicense: [unclosed\n---\n", None),
        ("---\nlicense: {a: b}\n---\n", None),
        ("---\n- license\n---\n", None),
        ("# license: mit\n", None),
        ("text\n---\nlicense: mit\n---\n", None),
        ("---\n" + "a: " + "[" * 5000 + "\n---\n", None),
        ("---\nlicense: mit\n" + "#" * 100_000 + "\n---\n", None),
    ],
)
def test_licence_of_a_card_is_its_front_matters(card, identifier):
    assert licence_of_card(card) == identifier


def test_yaml_that_would_run_code_is_not_run():
    assert licence_of_card("---\nlicense: !!python/object/apply:os.system ['exit 1']\n---\n") is None


def test_yaml_bomb_in_a_card_is_harmless():
    lines = ["a: &a0 [x, x]"] + [f"b{n}: &a{n + 1} [*a{n}, *a{n}, *a{n}]" for n in range(40)]
    assert licence_of_card("---\n" + "\n".join(lines) + "\nlicense: mit\n---\n") == "mit"


@pytest.mark.parametrize(
    ("text", "identifier"),
    [
        ("                Apache License\n          Version 2.0, January 2004", "apache-2.0"),
        ("Permission is hereby granted, free of charge, to any person ... without restriction", "mit"),
        ("GNU AFFERO GENERAL PUBLIC LICENSE\n Version 3", "agpl-3.0"),
        ("GNU GENERAL PUBLIC LICENSE\n Version 3", "gpl-3.0"),
        ("Attribution-NonCommercial 4.0 International", "cc-by-nc-4.0"),
        ("Attribution 4.0 International", "cc-by-4.0"),
        ("SPDX-License-Identifier: BSD-2-Clause", "bsd-2-clause"),
        ("All rights reserved.", None),
        ("", None),
    ],
)
def test_licence_texts_are_recognised(text, identifier):
    assert licence_of_text(text) == identifier


def test_card_beside_the_data_comes_before_a_file_further_up(tmp_path):
    folder = tmp_path / "data" / "chats"
    folder.mkdir(parents=True)
    rows = folder / "rows.jsonl"
    rows.write_text("{}")
    assert find_licence(rows, root=tmp_path) == Licence(None, "data/chats/README.md")
    (tmp_path / "LICENSE").write_text("MIT License")
    assert find_licence(rows, root=tmp_path) == Licence("mit", "LICENSE")
    assert find_licence(rows) == Licence(None, "README.md")
    (tmp_path / "data" / "README.md").write_text("---\nlicense: cc-by-4.0\n---\n")
    assert find_licence(rows, root=tmp_path) == Licence("cc-by-4.0", "data/README.md")
    assert find_licence(folder, root=tmp_path).identifier == "cc-by-4.0"


def test_licence_files_named_for_a_choice_offer_one(tmp_path):
    (tmp_path / "LICENSE-MIT").write_text("whatever")
    (tmp_path / "LICENSE-APACHE").write_text("Apache License Version 2.0")
    assert find_licence(tmp_path).identifier == "apache-2.0 or mit"


def test_an_unknown_licence_file_beside_a_known_one_leaves_it_unknown(tmp_path):
    (tmp_path / "LICENSE").write_text("MIT License")
    (tmp_path / "LICENSE-weights").write_text("Ask us.")
    assert find_licence(tmp_path).identifier is None


def test_code_named_like_a_licence_is_none(tmp_path):
    (tmp_path / "license_names.py").write_text("MIT License")
    (tmp_path / "licenses").mkdir()
    assert find_licence(tmp_path).identifier is None


@pytest.mark.parametrize(
    ("found", "allowed", "ok"),
    [
        ("mit", (), True),
        ("MIT License", ("mit",), True),
        ("mit", ("Apache 2.0", "MIT"), True),
        ("mit", ("apache-2.0",), False),
        ("mit or gpl-3.0", ("gpl-3.0",), True),
        ("mit and gpl-3.0", ("gpl-3.0",), False),
        ("mit and gpl-3.0", ("gpl-3.0", "mit"), True),
        ("cc-by-4.0", ("cc-by-sa-4.0",), False),
        (None, (), False),
        ("unknown", (), False),
        ("house rules", (), False),
        ("house rules", ("House rules",), True),
        (Licence("llama3", "README.md"), (), True),
    ],
)
def test_gate(found, allowed, ok):
    result = licence_gate(found, allowed)
    assert result.ok is ok
    assert bool(result.advice) is not ok


def test_gate_says_which_line_to_write_where():
    result = licence_gate(Licence(None, "chats/README.md"), ("cc-by-4.0",), what="`chats`", file="chats/README.md")
    assert result.reason == "The licence of `chats` is not known (chats/README.md)."
    assert "`license: cc-by-4.0`" in result.advice and "top of `chats/README.md`" in result.advice


@pytest.mark.parametrize(
    ("identifier", "words"),
    [
        ("cc-by-nc-4.0", ["commercial"]),
        ("cc-by-nc-nd-4.0", ["commercial", "derivatives"]),
        ("cc-by-nc-sa-4.0", ["commercial", "same terms"]),
        ("llama3.1", ["restricts"]),
        ("qwen-research", ["commercial"]),
        ("gpl-3.0", ["same terms"]),
        ("apache-2.0", []),
        ("ncsa", []),
    ],
)
def test_gate_cautions(identifier, words):
    cautions = licence_gate(identifier).cautions
    assert len(cautions) == len(words)
    assert all(word in caution for word, caution in zip(words, cautions, strict=True))
