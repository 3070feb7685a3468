"""Paraphrases by embeddings: candidates, the judge's port, and the process that makes the embeddings."""

from __future__ import annotations

import json
import subprocess
import sys
import zlib

import numpy as np
import pytest

from bot.brain.giveaways import GiveawayJudge
from bot.brain.model.choice import BrainSettings, model_of
from bot.brain.model.errors import ModelRefused
from bot.cli import run
from bot.data.paraphrases import NEAREST, ModelEmbedder, Pair, find_paraphrases
from bot.data.rows import Item
from bot.data.scan import scan
from bot.data.words import normalised_words
from bot.errors import UserError
from tests.fakes.encoder import random_encoder
from tests.fakes.language_models import MessagesApi, error, text

ITEM = Item("sheep", "How many sheep are left on the meadow when all but nine have run away?", "9")
RIVER = Item("river", "Which river flows past the castle where the poet wrote his longest letter?", "Neckar")
REWORDED = {
    "prompt": "When all sheep but nine have run away, how many are left, and on which meadow?",
    "completion": "9",
}
OTHER = {
    "prompt": "Name the commonest gas of the air that surrounds the whole of our planet.",
    "completion": "nitrogen",
}


def bag_of_words(texts):
    """Embeddings whose cosine is the share of words in common: enough to test what is done with embeddings."""
    vectors = np.zeros((len(texts), 4096), np.float32)
    for place, each in enumerate(texts):
        for word in normalised_words(each):
            vectors[place, zlib.crc32(word.encode()) % 4096] += 1
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_reworded_row_is_found_with_its_item_and_others_are_not():
    found = find_paraphrases([OTHER, REWORDED, OTHER], [ITEM, RIVER], bag_of_words)
    [match] = found.matches
    assert (match.row, match.eval_id, match.kind) == (1, "sheep", "paraphrase")
    assert 0.8 <= match.score < 1
    report = scan([OTHER, REWORDED, OTHER], [ITEM, RIVER])
    assert report.verdict == "clean"
    assert report.with_matches(found.matches).verdict == "contaminated"


def test_judge_has_the_last_word_and_sees_both_texts():
    asked = []

    def judge(pairs):
        asked.extend(pairs)
        return [pair.row == 2 for pair in pairs]

    found = find_paraphrases([OTHER, REWORDED, REWORDED], [ITEM], bag_of_words, judge=judge)
    assert [(match.row, match.kind) for match in found.matches] == [(2, "paraphrase")]
    assert (found.pairs, found.judged) == (2, True)
    assert {(pair.row, pair.row_text, pair.item_text) for pair in asked} == {
        (row, REWORDED["prompt"], ITEM.prompt) for row in (1, 2)
    }


def test_only_the_nearest_rows_of_an_item_are_kept_whatever_comes():
    rows = ({"prompt": REWORDED["prompt"] + " really" * (n % 7)} for n in range(3000))
    found = find_paraphrases(rows, [ITEM], bag_of_words)
    assert len(found.matches) == NEAREST
    assert {match.row % 7 for match in found.matches} == {0}


def test_items_that_embeddings_cannot_tell_apart_are_left_out():
    def sum_of(a, b):
        return f"Tell me please in one word what is the sum of {a} and {b}"

    items = [Item(str(n), sum_of(n, 3), str(n + 3)) for n in range(40)]
    assert find_paraphrases([{"prompt": sum_of(77, 3)}], [*items, Item("x", "yes", "no")], bag_of_words).matches == ()


@pytest.mark.slow
def test_a_model_that_is_not_there_is_said_in_words(tmp_path):
    embedder = ModelEmbedder(str(tmp_path / "absent"))
    with pytest.raises(UserError, match=r"--embeddings .*absent"):
        embedder.__enter__()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    texts = (ITEM.prompt, RIVER.prompt, REWORDED["prompt"], OTHER["prompt"])
    return random_encoder(tmp_path_factory.mktemp("encoder"), texts)


@pytest.mark.slow
def test_a_models_embeddings_find_the_reworded_row(model):
    with ModelEmbedder(str(model)) as embed:
        vectors = embed([ITEM.prompt, REWORDED["prompt"], OTHER["prompt"]])
        assert vectors.shape == (3, 64)
        assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
        assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2]
        found = find_paraphrases([OTHER, REWORDED], [ITEM, RIVER], embed, threshold=0.7)
        assert (1, "sheep") in {(match.row, match.eval_id) for match in found.matches}
    code = (
        "import sys; from bot.data.paraphrases import ModelEmbedder\n"
        f"with ModelEmbedder({str(model)!r}) as embed: embed(['a'])\n"
        "print(any(name in sys.modules for name in ('torch', 'transformers')))"
    )

    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "False"


class TestTheModelsWord:
    """Against the real client and a stand-in of the Messages API."""

    def judge(self, api, most_usd=1.0):
        model = model_of(BrainSettings("anthropic:claude-haiku-4-5", api.key, api.url))
        return GiveawayJudge(model, most_usd)

    def pairs(self, count=2):
        return [Pair(n, f"item-{n}", 0.7, f"row {n}", f"text of item {n}") for n in range(count)]

    def answer(self, asked):
        """The row that is named after its item is the same; all others are not."""
        return text("SAME" if "row 1\n" in json.dumps(asked).replace("\\n", "\n") else "They differ.\n**DIFFERENT**")

    def test_each_pair_is_asked_about_by_itself_and_its_word_counts(self):
        api = MessagesApi()
        api.say(*[self.answer] * 6)
        with api.serve():
            judge = self.judge(api)
            assert judge(self.pairs(6)) == [False, True, False, False, False, False]
        assert len(api.asked) == 6
        assert 0 < judge.usd < 0.05
        assert all(json.dumps(asked).count("text of item") == 1 for asked in api.asked)

    def test_an_answer_that_is_none_is_asked_for_again_and_then_said(self):
        api = MessagesApi()
        api.say(text("Perhaps"), text("SAME"))
        with api.serve():
            assert self.judge(api)(self.pairs(1)) == [True]
        api.say(text("Perhaps"), text("Who knows"))
        with api.serve(), pytest.raises(UserError, match="neither SAME nor DIFFERENT of row 0 and item item-0"):
            self.judge(api)(self.pairs(1))

    def test_no_more_is_spent_than_was_allowed(self):
        api = MessagesApi()
        with api.serve(), pytest.raises(UserError, match="USD for the model's word on paraphrases are spent"):
            self.judge(api, most_usd=0.001)(self.pairs(3))
        assert api.asked == []

    def test_a_key_that_is_refused_is_one_sentence(self):
        api = MessagesApi()
        api.say(*[error(401, "authentication_error", "invalid x-api-key")] * 2)
        with api.serve(), pytest.raises(ModelRefused, match="POSTDOC_BRAIN_KEY"):
            self.judge(api)(self.pairs(2))

    def test_the_command_says_what_is_missing(self, tmp_path, capsys):
        rows = tmp_path / "rows.jsonl"
        rows.write_text(json.dumps(OTHER) + "\n")
        assert run(["scan", "--train", str(rows), "--eval", str(rows), "--brain", "anthropic:claude-haiku-4-5"]) == 2
        assert "name an embedding model" in capsys.readouterr().err
