"""What the scripts that generate decide about answers and drafts, checked inside a process that can import them.

    python generating_checks.py NAME...      # runs the functions of these names; each asserts

`test_generating.py` starts it once for each. Not a test module itself: the process of the tests imports no torch.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

SCRIPTS = Path(__file__).resolve().parents[2] / "templates" / "scripts"


def script(name: str) -> Any:
    specification = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    assert specification and specification.loader
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module
    specification.loader.exec_module(module)
    return module


def chat(question: str, answer: str) -> dict[str, Any]:
    return {
        "prompt": [{"role": "user", "content": question}],
        "completion": [{"role": "assistant", "content": answer}],
        "reference": answer,
        "stratum": question.split()[0],
    }


def refused(call: Any) -> str:
    """The one line that the script gives up with."""
    errors, code = io.StringIO(), None
    try:
        with contextlib.redirect_stderr(errors):
            call()
    except SystemExit as stop:
        code = stop.code
    assert code == 2 and errors.getvalue().count("\n") == 1, (code, errors.getvalue())
    return errors.getvalue()


def answer(text: str, finish: str = "stop") -> dict[str, str]:
    return {"text": text, "finish": finish}


# --- rft ------------------------------------------------------------------------------------------------------------


def choice(rft: Any, answers: list[list[dict[str, str]]], right: list[list[bool]], **keys: Any) -> Any:
    rows = [chat(f"ask {n}", "x") for n in range(len(answers))]
    scores = [[{"mean": float(ok)} for ok in each] for each in right]
    return rft.choose_answers(rows, answers, scores, rft.Experiment(**keys), "0/1")


def only_verified_finished_different_answers_are_kept() -> None:
    rft = script("rft")
    drawn = [[answer("a"), answer(" a\n"), answer("b"), answer("c", "length"), answer("wrong")]]
    kept, numbers = choice(rft, drawn, [[True, True, True, True, False]], balance=False)
    assert sorted(text_of(row) for row in kept) == [" a\n", "b"], kept
    assert numbers["right_but_unfinished"] == 1 and numbers["right_but_repeated"] == 1
    assert numbers["pass_rate"] == 0.6 and numbers["kept_rows"] == 2


def a_mastered_prompt_keeps_fewer_rows_than_a_hard_one() -> None:
    rft = script("rft")
    easy = [answer(f"easy {n}") for n in range(8)]
    hard = [answer(f"hard {n}") for n in range(8)]
    right = [[True] * 8, [True, True, True] + [False] * 5]
    kept, numbers = choice(rft, [easy, hard], right, keep_per_prompt=4)
    assert [text_of(row).split()[0] for row in kept] == ["easy", "hard", "hard", "hard"]
    assert numbers["right_but_over_the_limit"] == 7 and numbers["prompts_without_right_answer"] == 0
    kept, _ = choice(rft, [easy, hard], right, keep_per_prompt=4, balance=False)
    assert [text_of(row).split()[0] for row in kept] == ["easy"] * 4 + ["hard"] * 3


def pass_rates_are_counted_in_bands() -> None:
    rft = script("rft")
    drawn = [[answer(str(n)) for n in range(4)]] * 3
    right = [[False] * 4, [True, False, False, False], [True] * 4]
    _, numbers = choice(rft, drawn, right)
    assert numbers["pass_rates"] == {"0": 1, "0-0.25": 1, "0.25-0.5": 0, "0.5-0.75": 0, "0.75-1": 1}
    assert numbers["prompts_without_right_answer"] == 1


def a_reward_that_does_not_apply_is_left_out_of_the_mean() -> None:
    rft = script("rft")
    rewards = {
        "right": lambda completions, reference, **_: [
            float(one[0]["content"] == ref) for one, ref in zip(completions, reference, strict=True)
        ],
        "sometimes": lambda finish, **_: [None if how == "length" else 0.0 for how in finish],
    }
    drawn = [[answer("x"), answer("x", "length"), answer("y")]]
    rows = [chat("ask", "x")]
    scores = rft.score_answers(rewards, [1.0, 1.0], rows, drawn, lambda text, **_: SimpleNamespace(input_ids=[1]), 9)
    assert [value["mean"] for value in scores[0]] == [0.5, 1.0, 0.0], scores
    assert scores[0][1]["sometimes"] is None


def what_is_kept_of_a_killed_run_is_whole_batches_of_this_very_run() -> None:
    rft, folder = script("rft"), Path("samples")
    folder.mkdir()
    lines = [{"key": "mine", "batch": 0, "answers": [1]}, {"key": "other", "batch": 1, "answers": [2]}]
    (folder / "round-1.0.jsonl").write_text("".join(f"\n{json.dumps(line)}\n" for line in lines) + '\n{"key": "mi')
    (folder / "round-1.1.jsonl").write_text("\n" + json.dumps({"key": "mine", "batch": 5, "answers": [3]}) + "\n")
    (folder / "round-2.0.jsonl").write_text("\n" + json.dumps({"key": "mine", "batch": 7, "answers": [4]}) + "\n")
    assert rft.kept_batches(folder, "round-1", "mine") == {0: [1], 5: [3]}


def refusals_of_rft_say_what_to_write() -> None:
    rft = script("rft")
    keys = rft.Experiment
    assert "temperature: 0" in refused(lambda: rft.check_rounds(keys(temperature=0.0)))
    assert "rounds needs" in refused(lambda: rft.check_rounds(keys(rounds=0)))
    assert "top_p needs" in refused(lambda: rft.check_rounds(keys(top_p=1.5)))
    numbers = {"right_but_unfinished": 3, "samples": 10}
    assert "max_completion_length: 512 tokens; raise it" in rft.nothing_right(numbers, keys())
    assert "method: sft" in rft.nothing_right(numbers | {"right_but_unfinished": 0}, keys())


# --- synthetic ------------------------------------------------------------------------------------------------------


def drafts_are_read_or_counted_out() -> None:
    synthetic = script("synthetic")
    rejected: Counter[str] = Counter()
    written = [
        answer("Question: reverse abc\nAnswer: cba"),
        answer("reverse xy\nAnswer: yx"),
        answer("Question: reverse abc\nAnswer: cb", "length"),
        answer("no form at all"),
        answer("Question: a\nAnswer: b\nQuestion: c\nAnswer: d"),
        answer("Question: reverse 12\nAnswer: 21"),
    ]
    experiment = synthetic.Experiment(answer_pattern="[a-z]+")
    found = synthetic.parsed_drafts(written, [chat("reverse q", "q")] * len(written), experiment, rejected)
    assert [(row["prompt"][-1]["content"], row["reference"]) for row in found] == [
        ("reverse abc", "cba"),
        ("reverse xy", "yx"),
    ]
    assert found[0]["stratum"] == "reverse"
    assert rejected == {
        "cut off at max_completion_length": 1,
        "not one question and one answer": 2,
        "the answer does not match answer_pattern": 1,
    }


def a_system_message_of_the_examples_stays() -> None:
    synthetic = script("synthetic")
    seed = chat("reverse q", "q")
    seed["prompt"] = [{"role": "system", "content": "Be brief."}, *seed["prompt"]]
    (row,) = synthetic.parsed_drafts([answer("reverse ab\nAnswer: ba")], [seed], synthetic.Experiment(), Counter())
    assert row["prompt"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "reverse ab"},
    ]


def repetitions_of_rows_and_of_each_other_are_dropped() -> None:
    synthetic = script("synthetic")
    rejected: Counter[str] = Counter()
    long = "a train leaves the station at noon and drives to the sea with nine people"
    known = [chat("reverse abc", "cba"), chat(long, "9")]
    new = [
        chat("reverse  abc", "cba"),
        chat("reverse abd", "dba"),
        chat("reverse abd", "dba"),
        chat(long.replace("nine", "ten"), "10"),
        chat("quite another question about a ship that leaves the harbour at midnight with ten sailors", "10"),
    ]
    found = synthetic.without_repetitions(new, known, synthetic.Experiment(), rejected)
    assert [row["prompt"][0]["content"].split()[0] for row in found] == ["reverse", "quite"]
    assert rejected == {"repeats a prompt": 2, "nearly repeats a prompt": 1}


def votes_keep_what_the_majority_says() -> None:
    synthetic = script("synthetic")
    rejected: Counter[str] = Counter()
    rows = [chat("reverse abc", "cba"), chat("reverse xyz", "xyz")]
    drawn = [[answer("cba"), answer("cba"), answer("bca")], [answer("zyx"), answer("zyx"), answer("xyz", "length")]]
    found = synthetic.agreed(rows, drawn, synthetic.Experiment(vote_share=0.6), rejected)
    assert [(row["reference"], row["agreement"]) for row in found] == [("cba", 0.75)]
    boxed = synthetic.Experiment(vote_share=1.0, vote_pattern=r"#### (\d+)")
    sums = [chat("add", "1 and 2\n#### 3")]
    assert synthetic.agreed(sums, [[answer("two, one\n#### 3")]], boxed, rejected)[0]["agreement"] == 1.0


def strata_are_filled_to_their_shares_and_no_row_is_used_too_often() -> None:
    synthetic = script("synthetic")
    real = [chat(f"sort {n}", "x") for n in range(30)] + [chat(f"reverse {n}", "x") for n in range(10)]
    made = [chat(f"sort new{n}", "x") for n in range(50)] + [chat(f"reverse new{n}", "x") for n in range(4)]
    experiment = synthetic.Experiment(stratum_shares="equal", synthetic_share=0.5)
    rows, strata = synthetic.mixed(real, made, experiment, 0)
    assert strata["sort"] == {"real": 30, "verified": 50, "target": 20, "used": 20, "most_repeats": 1}
    assert strata["reverse"] == {"real": 10, "verified": 4, "target": 20, "used": 16, "most_repeats": 4}
    assert len(rows) == 40 + 36 and rows == synthetic.mixed(real, made, experiment, 0)[0]
    assert rows != synthetic.mixed(real, made, experiment, 1)[0]
    rows, _ = synthetic.mixed(real, made, synthetic.Experiment(synthetic_share=1.0, synthetic_rows=10), 0)
    assert len(rows) <= 10 and all("new" in row["prompt"][0]["content"] for row in rows)


def refusals_of_synthetic_say_what_to_write() -> None:
    synthetic = script("synthetic")
    keys = synthetic.Experiment
    assert "votes above 0" in refused(lambda: synthetic.check_stages(keys(votes=0)))
    assert "one group" in refused(lambda: synthetic.check_stages(keys(vote_pattern="a")))
    assert "no regular expression" in refused(lambda: synthetic.check_stages(keys(answer_pattern="(")))
    assert "write synthetic_rows" in refused(lambda: synthetic.check_stages(keys(synthetic_share=1.0)))
    assert "two models" in refused(lambda: synthetic.check_stages(keys(generator="a", teacher="b")))
    named = keys(teacher="runs/02")
    synthetic.check_stages(named)
    assert named.generator == "runs/02"
    real = [chat("sort ab", "ab")]
    assert "the strata of the rows are sort" in refused(
        lambda: synthetic.shares_of(real, keys(stratum_shares="reverse=1"))
    )
    assert "no column" in refused(lambda: synthetic.stratum_of(real[0], keys(stratum="level")))
    rejected = Counter({"not one question and one answer": 5})
    assert "new_prompts: false" in synthetic.nothing_verified({"drafted": 5}, rejected, keys())


# --- distill --------------------------------------------------------------------------------------------------------


def flags_and_recipe_say_whose_answers_are_trained_on() -> None:
    distill = script("distill")
    Path("recipe.yaml").write_text("on_policy: no\n")
    Path("empty.yaml").write_text("")
    asked = distill.asked_on_policy
    assert not asked(["--config", "recipe.yaml"]) and asked(["--config", "empty.yaml"]) and asked([])
    assert asked(["--config", "recipe.yaml", "--on_policy", "true"])
    assert not asked(["--no_on_policy"]) and not asked(["--on_policy", "False", "--config", "empty.yaml"])


def text_of(row: dict[str, Any]) -> str:
    return str(row["completion"][0]["content"])


if __name__ == "__main__":
    for name in sys.argv[1:]:
        globals()[name]()
