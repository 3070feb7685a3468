"""What a column's name says about the part it plays. Names alone decide nothing: `mapping` looks at the values too."""

from __future__ import annotations

import re
from collections.abc import Sequence

PROMPTS = (
    "prompt", "instruction", "question", "query", "problem", "inputs", "input", "request", "questions", "problems",
    "instructions", "user_input", "user_prompt", "question_stem", "puzzle", "question_text", "question_content",
)  # fmt: skip
"""The more specific first; so in every list here."""
CONTEXTS = (
    "context", "passage", "article", "document", "story", "paragraph", "background", "contexts", "schema", "narrative",
    "ctx", "premise", "body", "selftext",
)  # fmt: skip
READ = (
    "document", "article", "dialogue", "dialog", "conversation", "transcript", "passage", "context", "contexts",
    "text", "content", "post", "body", "history", "description", "sentence", "premise", "ctx", "utterance",
    "paragraph", "story", "src", "source", "source_text", "src_text", "selftext", "report", "complaint", "user",
    "human", "goal", "task", "statement", "title",
)  # fmt: skip
"""What a prompt is made of where no column is called one."""
ANSWERS = (
    "completion", "response", "answer", "output", "solution", "assistant", "reply", "target", "targets", "outputs",
    "responses", "answers", "solutions", "completions", "demonstration", "generation", "generations", "chosen",
    "continuation", "correct_answer", "answer_text",
)  # fmt: skip
WRITTEN = (
    "summary", "highlights", "abstract", "headline", "code", "sql", "translation", "simplified", "label", "text",
    "target_text", "rewrite", "correction", "paraphrase", "tldr", "caption", "intent", "tgt", "explanation",
    "rationale",
)  # fmt: skip
"""What an answer is called where no column is called one."""
REFERENCES = (
    "ground_truth", "reference_answer", "expected_answer", "final_answer", "correct_answer", "gold_answer",
    "answer_key", "gold", "reference", "answer", "answers", "target", "label", "final_decision", "solution",
    "expected_output", "completion", "output", "response", "result",
)  # fmt: skip
"""What a rule can compare with, in order."""
TESTS = ("test", "tests", "test_list", "test_cases", "unit_tests", "public_tests", "private_tests", "input_output")
CONVERSATIONS = (
    "messages", "conversations", "conversation", "dialogue", "dialog", "chat", "dialogs", "turns", "conv", "history",
    "data", "texts", "chats", "transcript", "text", "exchange", "interaction",
)  # fmt: skip
CHOSEN = ("chosen", "preferred", "accepted", "better", "winner", "positive", "win", "pos", "chosen_response",
          "preferred_response", "accepted_response", "good")  # fmt: skip
REJECTED = ("rejected", "dispreferred", "worse", "loser", "negative", "lose", "neg", "rejected_response",
            "dispreferred_response", "non_preferred", "bad")  # fmt: skip
OPPOSITES = (
    ("chosen", "rejected"), ("preferred", "dispreferred"), ("accepted", "rejected"), ("better", "worse"),
    ("winner", "loser"), ("win", "lose"), ("positive", "negative"), ("pos", "neg"), ("good", "bad"),
    ("winning", "losing"), ("correct", "incorrect"), ("right", "wrong"), ("best", "worst"), ("helpful", "unhelpful"),
    ("harmless", "harmful"), ("accept", "reject"), ("preferred", "unpreferred"),
    ("preferred", "nonpreferred"), ("preferred", "rejected"), ("safe", "unsafe"), ("w", "l"), ("yes", "no"),
    ("j", "k"),  # of pairs from Stack Exchange: https://huggingface.co/datasets/lvwerra/stack-exchange-paired
)  # fmt: skip
SIDES = (("a", "b"), ("0", "1"), ("1", "2"), ("left", "right"), ("first", "second"), ("one", "two"))
SYSTEMS = ("system", "system_prompt", "system_message", "sys_prompt", "system_instruction", "sys")
TOOLS = ("tools", "functions", "available_tools", "tool_definitions", "function_definitions", "apis")
CHOICES = ("choices", "options", "endings", "candidates", "alternatives", "answer_choices", "mc_options", "answers",
           "option", "choice", "multiple_choice_targets")  # fmt: skip
PICKS = (
    "answer_key", "answer_idx", "answer_index", "answer", "label", "correct_answer", "correct", "correct_option", "cop",
    "gold", "target", "correct_choice", "answer_letter", "gold_index", "correct_idx", "answerkey", "correct_index",
    "ans", "correct_answer_idx", "gold_label", "solution", "output", "answer_option",
)  # fmt: skip
TEXTS = ("text", "content", "document", "sentence", "article", "body", "review", "code", "tweet", "utterance", "utt",
         "comment", "message", "sms", "query", "question", "prompt", "input", "abstract", "headline", "title",
         "description", "story", "raw_content", "passage", "post", "review_body", "premise")  # fmt: skip
PAIRS = (
    ("premise", "hypothesis"), ("sentence1", "sentence2"), ("question1", "question2"), ("text1", "text2"),
    ("question", "sentence"), ("question", "passage"), ("title", "content"), ("title", "text"), ("title", "body"),
    ("context", "statement"), ("sent1", "sent2"), ("claim", "evidence"),
    ("sentence_a", "sentence_b"), ("text_a", "text_b"), ("title", "abstract"), ("headline", "body"),
    ("query", "passage"), ("title", "description"), ("premise", "claim"), ("passage", "question"),
    ("text", "hypothesis"), ("sentence", "hypothesis"),
)  # fmt: skip
"""Texts that are judged together."""
LABELS = ("label", "labels", "class", "category", "sentiment", "intent", "target", "emotion", "topic", "toxic",
          "is_toxic", "star", "stars", "rating", "score", "output", "answer", "type", "genre", "language", "lang",
          "gold_label", "stance", "decision", "spam", "is_spam",
          "status", "species", "diagnosis", "product")  # fmt: skip
SPOKEN = ("text", "sentence", "transcription", "transcript", "normalized_text", "transcriptions", "normalised_text",
          "raw_text", "caption", "utterance")  # fmt: skip
REASONING = frozenset({"cot", "reasoning", "thinking", "thought", "thoughts", "rationale", "scratchpad", "trajectory",
                       "trajectories", "explanation"})  # fmt: skip
TRANSLATED = {
    **dict.fromkeys(("pregunta", "frage", "domanda", "pergunta", "vraag", "soru", "pytanie", "вопрос", "问题", "質問",
                     "질문", "سؤال", "प्रश्न"), "question"),
    **dict.fromkeys(("respuesta", "antwort", "réponse", "reponse", "risposta", "resposta", "antwoord", "cevap",
                     "odpowiedź", "ответ", "答案", "回答", "답변", "جواب", "उत्तर"), "answer"),
    **dict.fromkeys(("instrucción", "instruccion", "anweisung", "istruzione", "instrução", "инструкция", "指令",
                     "지시"), "instruction"),
    **dict.fromkeys(("contexto", "kontext", "contexte", "contesto", "контекст"), "context"),
    **dict.fromkeys(("texto", "texte", "testo", "tekst", "текст", "文本"), "text"),
    **dict.fromkeys(("etiqueta", "étiquette", "etichetta", "метка", "标签"), "label"),
}  # fmt: skip
"""Commonest words of other languages."""
_ABOUT = frozenset(
    {
        "id", "ids", "idx", "index", "hash", "len", "length", "tokens", "num", "number", "count", "n", "score",
        "scores", "rating", "ratings", "rank", "model", "models", "type", "types", "lang", "language",
        "category", "categories", "topic", "domain", "url", "link", "date", "time", "timestamp", "original",
        "orig", "rejected", "incorrect", "wrong", "bad", "distractor", "negative", "format", "style",
        "difficulty", "level", "split", "meta", "metadata", "file", "path", "filename", "embedding",
        "embeddings", "verified", "correctness", "safe", "is", "has", "seed", "init", "initial", "critic",
        "revision", "source", "sources", "dataset", "name", "quality", "reward", "feature", "features",
        "critique", "feedback", "tags", "tag", "version", "status", "uuid", "logprob", "logprobs", "role",
        "generator", "author", "user_id", "usage", "start", "end", "attempt", "annotator", "worker", "metric",
        "test", "tests", "unsafe", "loser", "worse", "losing", "concept", "distribution", "paraphrased", "char",
        "chars", "severity",
    }
)  # fmt: skip
"""A name with one of these tells about the text that the rest of it names."""


ASIDE = frozenset(
    {
        "rejected", "incorrect", "wrong", "distractor", "distractors", "bad", "unsafe", "loser", "worse", "losing",
        "critique", "critiques", "feedback", "judgement", "judgment", "judge", "annotator", "annotators", "annotation",
        "annotations", "labelling", "labeling", "evaluation", "eval", "grader", "verdict", "test", "tests", "hint",
        "hints", "equation", "equations", "formula", "program", "derivation", "metadata", "meta", "info", "extra",
        "misc", "keywords", "tags", "entities", "log", "logs", "tokens", "embedding", "prefix", "suffix", "comments",
        "reason", "reasons", "exp", "note", "notes", "remarks", "rubric", "rubrics", "criteria",
        "principle", "principles", "guideline", "guidelines", "authors", "publisher", "location", "journal", "venue",
        "moderation", "url", "urls", "license", "licence", "citation", "citations", "reference_url", "error",
        "errors", "warnings",
    }
) | REASONING | {"explanations", "steps", "plan", "analysis"}  # fmt: skip
"""A name with one of these says what the column is beside the question and the answer, however long its texts are."""


FORMS = frozenset(
    {
        "original", "orig", "initial", "raw", "old", "previous", "unprocessed", "clean", "cleaned", "normalized",
        "normalised", "translated", "tokenized", "processed", "formatted", "template", "html", "markdown", "latex",
        "lower", "stripped", "lemmatized", "prettified", "truncated", "text", "str", "string", "content",
    }
)  # fmt: skip
"""A name with one of these beside the name of a used column is that column in another form."""


def words_of(name: str) -> list[str]:
    """`generatedSolution`, `generated-solution` and `Generated Solution` alike: ["generated", "solution"]."""
    spread = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name.rpartition(".")[2])
    return [TRANSLATED.get(word, word) for word in re.findall(r"[^\W\d_]+|\d+", spread.lower())]


def rank_of(name: str, names: Sequence[str]) -> tuple[int, int] | None:
    """How well a name fits: (0, place) for one of `names` itself, (1, place) where it ends in one, (2, place) where it
    begins with one; None where it tells about something else. Smaller is better."""
    words = words_of(name)
    joined = "_".join(words)
    if joined in names:
        return 0, names.index(joined)
    if "".join(words) in names:
        return 0, names.index("".join(words))
    if not words or _ABOUT & set(words):
        return None
    numbered = [word for word in words if not word.isdigit()]
    for tier, word in ((1, numbered[-1:]), (2, numbered[:1])):
        if word and word[0] in names:
            return tier, names.index(word[0])
    return None


def is_about(name: str) -> bool:
    """Whether the name is that of a fact about the row."""
    return bool(_ABOUT & set(words_of(name)))


def without(name: str, phrase: str) -> tuple[str, ...] | None:
    """The words of a name but for `phrase`, one word or several; None where it does not hold them."""
    words, parts = words_of(name), phrase.split()
    found = [at for at in range(len(words)) if words[at : at + len(parts)] == parts]
    return (*words[: found[-1]], "", *words[found[-1] + len(parts) :]) if found else None
