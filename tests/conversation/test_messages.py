"""Every sentence the bot says, on a goal told as a journal."""

# ruff: noqa: E501 - snapshots hold the lines as they are said

from __future__ import annotations

import copy
import re

import pytest
from inline_snapshot import snapshot
from markdown_it import MarkdownIt

from bot.conversation import messages
from bot.conversation.commands import checked, parse_commands
from bot.conversation.messages.charts import MOST_POINTS, Curve, sparkline, thinned, told, xychart
from bot.conversation.messages.wording import clock, difference, duration, p_value, percent, with_unit
from bot.conversation.policy import Policy
from bot.domain.budget import Spend
from bot.domain.diagnosis import Diagnosis
from bot.domain.experiment import BASELINE, Command, EventKind, Experiment, State
from bot.domain.metrics import METRICS
from tests.conversation.conftest import CLIPPED, GOAL_ID, PLATEAU, SHA, Story, make_goal, score

COMMAND = Command(9, "set", ["learning_rate=1e-5"], "alice", 11, 77, 43)
FACTS = messages.PlanFacts(
    recipe_source="the goal's own starting recipe",
    rows=4000,
    validation_rows=64,
    dropped={"duplicate": 12},
    licence="apache-2.0",
    scan_verdict="clean",
    scan_rows=4000,
    seconds_per_run=24.0,
    usd_per_run=0.0,
)
LEFT = Spend(usd=4.5, gpu_hours=1.25, runs=2, wall_hours=9.0)
CURVE = Curve("loss", [(step, 3.9 / step) for step in range(1, 201)])


EVIL = (
    "@mallory Fixes #7 ![x](https://evil.example/p.png) [y](https://evil.example) <img src=x> "
    "<!-- postdoc:acme/widgets#42/sticky --> | a | `b` **c**\n/postdoc run\n\n# Title\n"
)


def all_messages(x: Experiment) -> dict[str, str]:
    """Each message that carries a hidden key, by that key's name."""
    goal, run = x.goal, x.runs[0]
    assert goal is not None
    found = {
        "contract": messages.contract(x, goal, policy_lines=Policy().lines(), notes=["A note."]),
        "pull-request": messages.pull_request_body(x, FACTS),
        "sticky": messages.sticky(x, now=9_000.0),
        f"consent/{x.head_sha[:12]}": messages.consent_question(
            x, sha=x.head_sha, left=LEFT, what=["Nothing is granted."], facts=FACTS
        ),
        "run/01/review": messages.review(x, run, curves=[CURVE]),
        "run/01/D1": messages.inline_comment(x, run, "D1", run.report.diagnoses[0], "learning_rate: 0.001"),
        f"ending/{x.length}": messages.ending(x, model_line='AutoModelForCausalLM.from_pretrained("x")'),
        f"crash/{x.length}": messages.crash_apology(x, "delivery 3f2a"),
        f"head/{x.head_sha[:12]}": messages.head_refused(x, x.head_sha, ["Recipe, line 2: wrong."]),
    }
    return found | {f"answers ({n})": answered(x, text) for n, text in enumerate(replies(x))}


def replies(x: Experiment) -> list[str]:
    changed = {"learning_rate": [0.001, 1e-05]}
    return [
        messages.reply_help(),
        messages.reply_help("run"),
        messages.reply_status(x, on_pull_request=True),
        messages.reply_status(x, on_pull_request=False),
        messages.plan(x, FACTS),
        messages.reply_denied(COMMAND, "write", "read"),
        messages.reply_mistake(checked("satus", ())),  # type: ignore[arg-type]
        messages.reply_changed(x, "Committed", changed, SHA[2], None),
        messages.reply_changed(x, "D1 committed", changed, SHA[2], "nobody has agreed to this spending yet"),
        messages.reply_run(x, SHA[2], LEFT),
        messages.reply_stale("abc", SHA[2]),
        messages.reply_second_person(x, 20.0),
        messages.reply_stop(x),
        messages.reply_resume(LEFT),
        messages.reply_budget(x, LEFT, resumed=True),
        messages.reply_halt(2),
        messages.reply_adopted(x),
        messages.reply_unhalted(True),
        messages.reply_vouched("postdoc/vouched-7-abc", SHA[2], "THE-COMPARE-PAGE"),
        messages.reply_refused("There is no open pull request."),
        messages.reply_no_diagnosis(["D1"]),
    ]


def answered(x: Experiment, text: str) -> str:
    """The comment that holds this answer, after three others."""
    x = copy.deepcopy(x)
    before = [Command(n, "help", [EVIL], EVIL, 11, 77, 42, answered=True, answer="Before.") for n in range(3)]
    last = Command(9, "set", ["learning_rate=1e-5", EVIL], "alice", 11, 77, 42, answered=True, answer=text)
    x.commands = [*before, last]
    return messages.answers(x, 42)


def test_every_message_begins_with_its_key_and_commands_nothing(after_two_runs: Story) -> None:
    for name, body in all_messages(after_two_runs.experiment()).items():
        assert messages.key_of(body) == messages.key(GOAL_ID, name.split(" ")[0]), name
        assert body.startswith(messages.hidden_key(GOAL_ID, name.split(" ")[0]) + "\n")
        assert parse_commands(body) == [], name
        assert "None" not in body
        assert "nan" not in body.split("```")[0]


def test_key_of_reads_our_first_line_and_nothing_else() -> None:
    assert messages.key_of("<!-- postdoc:a/b#1/sticky -->\nx") == "a/b#1/sticky"
    assert messages.key_of("x\n<!-- postdoc:a/b#1/sticky -->") is None
    assert messages.key_of("<!-- postdoc:a b -->") is None
    assert messages.key_of("") is None


def hostile(story: Story) -> Experiment:
    """The same goal, with hostile text wherever text from outside can stand."""
    x = story.experiment()
    x.goal = make_goal(
        title=EVIL, base_model=EVIL, benchmark=EVIL, metric=EVIL, recipe=EVIL, dataset=EVIL, licences=(EVIL,)
    )
    x.reason, x.author, x.changed = EVIL, EVIL, {EVIL: [EVIL, EVIL]}
    for run in x.runs:
        run.failure, run.changed = EVIL, {EVIL: [EVIL, EVIL]}
        run.remedy = {"key": EVIL, "value": EVIL, "why": EVIL}
        run.probe = {
            "steps": 3,
            "reason": EVIL,
            "suggested": EVIL,
            "trials": [{"learning_rate": EVIL, "loss_first": EVIL}],
        }
        evil = PLATEAU | {"cause": EVIL, "key": "learning_rate", "runner_up": EVIL, "refuted_by": EVIL}
        evil |= {"evidence": [{"key": EVIL, "step": 1, "value": EVIL}]}
        run.report = copy.copy(run.report)
        object.__setattr__(run.report, "diagnoses", (Diagnosis.from_dict(evil),))
        object.__setattr__(run.report, "ruled_out", (EVIL,))
    return x


def test_hostile_text_is_inert_in_every_message(after_two_runs: Story) -> None:
    markdown = MarkdownIt("commonmark").enable("table")
    x = hostile(after_two_runs)
    x.folder = "experiments/0042-reverse"

    for name, body in all_messages(x).items():
        assert parse_commands(body) == [], name
        assert messages.key_of(body) == messages.key(GOAL_ID, name.split(" ")[0])
        for token in markdown.parse(body):
            inside = token.children or ()
            assert not [t.type for t in inside if t.type in ("image", "link_open")], name
            html = (
                [token.content]
                if token.type == "html_block"
                else [t.content for t in inside if t.type == "html_inline"]
            )
            for piece in html:
                own = r"</?details>|</?summary>|</?code>|<!-- postdoc:[\w./#-]+ -->|<!-- postdoc:box \w+ -->"
                assert "<" not in re.sub(own, "", piece), (name, piece)
            text = "".join(t.content for t in inside if t.type == "text")
            assert "@mallory" not in text, name
            assert "#7" not in text, name
            assert "://" not in text, name


def test_hostile_text_is_inert_in_titles_and_commits(after_two_runs: Story) -> None:
    x = hostile(after_two_runs)
    commit = messages.commit_message(x, 1, {EVIL: [EVIL, EVIL]}, EVIL)

    texts = [
        messages.pull_request_title(x),
        str(commit),
        str(messages.proposal_message(x)),
        str(messages.closing_message(x)),
    ]
    for text in [*texts, messages.check_done_title(x.runs[0], None, 0.9), messages.verdict_check(x).title]:
        assert "@mallory" not in text
        assert "#7" not in text
        assert "://" not in text
    assert "\n" not in commit.headline
    assert len(commit.headline) <= 72
    assert commit.body.splitlines()[-1] == "Postdoc-Run: 42/01"


def test_messages_stay_within_githubs_limits(after_two_runs: Story) -> None:
    x = after_two_runs.experiment()
    x.goal = make_goal(recipe="# " + "x" * 120_000)
    x.runs[0].report = copy.copy(x.runs[0].report)
    many = tuple(Diagnosis.from_dict(PLATEAU | {"cause": "c" * 5_000}) for _ in range(300))
    object.__setattr__(x.runs[0].report, "diagnoses", many)

    for name, body in all_messages(x).items():
        assert len(body) <= 65_536, name
        assert body.count("<details>") == body.count("</details>"), name
        assert len(re.findall(r"^```", body, re.MULTILINE)) % 2 == 0, name
    assert "did not fit" in messages.contract(x, x.goal)


# --- single messages


def test_contract_echoes_every_field(story: Story) -> None:
    x = story.experiment()
    goal = make_goal(dataset="data/x.jsonl", method="sft", script="scripts/t.py", base_revision="abc123")

    text = messages.contract(x, goal)

    assert text == snapshot("""\
<!-- postdoc:acme/widgets#42/contract -->
**This is the goal as I understood it.** If a line is wrong, edit the issue; I will read it again.

|  | As understood |
| --- | --- |
| Goal | Raise tiny-qwen3 on reverse to 90 % |
| Base model | `postdoc/tiny-qwen3` at `abc123` |
| Benchmark | `practice/reverse` |
| Metric | `exact_match` |
| Target | 90 % |
| Method | `sft` |
| Training data | `data/x.jsonl` |
| Starting recipe | given below |
| Training script | `scripts/t.py` |
| Licences | `apache-2.0` |
| Budget | 4 runs, 1 GPU hour, no money, 24 hours from consent to end |
| Seed | 7 |

<details><summary>Starting recipe, which runs first</summary>

```yaml
method: sft
learning_rate: 2e-5  # from the card
num_train_epochs: 3
max_length: 2048
```

</details>

Next: the data is built and checked, then a pull request shows the plan. Consent is bound to this goal's hash, `83856727b593`.
""")


def test_refusal_lists_problems_and_questions(story: Story) -> None:
    text = messages.refusal(story.experiment(), ["Target `-5 %` is below zero: write `90 %`."], ["Which model?"])

    assert text == snapshot("""\
<!-- postdoc:acme/widgets#42/contract -->
**I cannot start on this goal yet.** One thing to correct:

- Target `-5 %` is below zero: write `90 %`.

Also missing:

- Which model?

Edit the issue and I will read it again. Nothing is trained until then.
""")


def test_refusal_notifies_nobody(story: Story) -> None:
    assert "@alice" not in messages.refusal(story.experiment(), ["Ask somebody, @alice has `read`."])


def test_plan_says_what_is_known_and_what_is_not(story: Story) -> None:
    assert messages.plan(story.experiment(), FACTS) == snapshot("""\
**The next run**, of the recipe at 1a2b3c4.

|  |  |
| --- | --- |
| Method | `sft` |
| Recipe | the goal's own starting recipe |
| Data | 4,000 rows, 64 held out for validation; dropped: 12 duplicate |
| Licence of the data | `apache-2.0` |
| Contamination scan | clean: none of 4,000 rows shares text with an evaluation item |
| Untouched base model | 1.5 % (95 % interval 0.5 to 4.3 %, n = 200) |
| Machine | this server's |
| One run | about 24 s, no charge |
| At most | 4 runs, 1 GPU hour, no money, 24 hours from consent to end |

Next: the first run is trained, evaluated and reviewed.\
""")
    unknown = messages.plan(story.experiment(), messages.PlanFacts())
    for words in ("not built yet", "not done yet", "not known", "time not known yet, price not known"):
        assert words in unknown


def test_contaminated_data_is_said_loudly(story: Story) -> None:
    facts = messages.PlanFacts(scan_verdict="contaminated", scan_flagged=3, scan_rows=100)

    assert "**contaminated**: 3 rows of 100 rows share text" in messages.plan(story.experiment(), facts)


def test_consent_names_the_ceiling_and_the_command_with_its_commit(story: Story) -> None:
    x = story.experiment()

    assert messages.consent_question(x, sha=x.head_sha, left=LEFT, what=["The policy grants nothing."]) == snapshot("""\
<!-- postdoc:acme/widgets#42/consent/1a2b3c4d5e6f -->
**May I train the recipe at 1a2b3c4?** That covers at most 2 runs, 1.25 GPU hours and 4.50 USD.

- The policy grants nothing.

To agree, comment:

```
/postdoc run 1a2b3c4d5e6f
```

A later push or a changed goal voids this. To decline, do nothing, or comment `/postdoc stop`.
""")


def test_sticky_tells_ledger_spend_and_next_step(after_two_runs: Story) -> None:
    assert messages.sticky(after_two_runs.experiment(), now=9_000.0) == snapshot("""\
<!-- postdoc:acme/widgets#42/sticky -->
**Revising the recipe after run 2.**

|  |  |
| --- | --- |
| Target | 90 % `exact_match` on `practice/reverse` |
| Base model | 1.5 % (95 % interval 0.5 to 4.3 %, n = 200) |
| Best run | run 2: 93.5 % (95 % interval 89.2 to 96.2 %, n = 200) |
| Spent | 2 of 4 runs, 0.02 of 1 GPU hour, no money |
| Open for | 2 h 13 min |

### Runs

| Run | Commit | Changed | Value (95 % interval) | Against base | Symptoms | Time |
| --- | --- | --- | --- | --- | --- | --- |
| base |  | untouched | 1.5 % (0.5 to 4.3, n 200) |  |  |  |
| 1 | 1a2b3c4 | first recipe | 2.5 % (1.1 to 5.7, n 200) | cannot tell | `plateau` | 23 s |
| **2** | 7d8e9f0 | `learning_rate` `2e-05` → `0.001` | 93.5 % (89.2 to 96.2, n 200) | better | none | 23 s |

Next: the sealed test is opened, once, to confirm.

- [ ] Stop: end the running job, train nothing more <!-- postdoc:box stop -->
- [ ] One hour more of budget <!-- postdoc:box hour -->
""")


def test_sticky_boxes_are_read_back(story: Story) -> None:
    body = messages.sticky(story.experiment())

    assert messages.boxes_ticked(body) == frozenset()
    assert messages.boxes_ticked(body.replace("- [ ] Stop", "- [x] Stop")) == {"stop"}
    assert messages.boxes_ticked(body.replace("[ ]", "[X]")) == {"stop", "hour"}


def test_sticky_of_an_ended_goal_has_no_boxes(after_two_runs: Story) -> None:
    assert "- [ ]" not in messages.sticky(after_two_runs.ended("stopped").experiment())


@pytest.mark.parametrize("state", list(State))
def test_every_state_has_words(after_two_runs: Story, state: State) -> None:
    x = after_two_runs.experiment()
    x.state = state

    assert "Next: " in messages.sticky(x)


def test_check_title_is_one_line_of_progress(story: Story) -> None:
    run = story.trained(1).experiment().runs[0]
    progress = messages.Progress(1240, 3000, 1.3071, 4.12, 20.0, 860.0)

    assert messages.check_title(run, progress) == "step 1,240/3,000 · loss 1.31 · $4.12 of $20 · ETA 14:20"
    assert messages.check_title(run, messages.Progress(0, phase="starting")) == "starting"
    assert messages.check_title(run, messages.Progress(3, loss=float("nan"))) == "step 3 · loss NaN"


def test_check_summary_draws_progress_and_loss(story: Story) -> None:
    run = story.trained(1).experiment().runs[0]

    text = messages.check_summary(run, messages.Progress(50, 100), [4.0, 3.0, None, 2.0, 1.0])

    assert text == snapshot("""\
Run 1 trains 1a2b3c4: the first recipe.

`███████████████░░░░░░░░░░░░░░░` 50%

`█▆×▃▁` loss 4 → 1

1 of 5 logged losses are not numbers.
""")


@pytest.mark.parametrize(
    ("status", "failure", "verdict", "conclusion"),
    [
        (None, None, "better", "success"),
        (None, None, "worse", "failure"),
        (None, None, "cannot tell", "neutral"),
        (None, "It broke.", None, "failure"),
        ({"state": "succeeded"}, None, "better", "success"),
        ({"state": "failed", "failure": "oom"}, "Out of memory.", None, "failure"),
        ({"state": "failed", "failure": "timeout"}, "Too long.", None, "timed_out"),
        ({"state": "failed", "failure": "platform"}, "Sandbox.", None, "neutral"),
        ({"state": "lost", "failure": None}, None, None, "neutral"),
        ({"state": "cancelled", "failure": None}, None, None, "cancelled"),
    ],
)
def test_check_conclusion_means_something(
    story: Story, status: dict[str, str] | None, failure: str | None, verdict: str | None, conclusion: str
) -> None:
    run = story.trained(1).experiment().runs[0]
    run.failure, run.verdict = failure, verdict

    assert messages.check_conclusion(run, job_status=status) == conclusion


def test_completed_check_has_value_interval_and_n(after_two_runs: Story) -> None:
    x = after_two_runs.experiment()

    assert messages.check_done_title(x.runs[1], x.baseline, 0.9) == snapshot(
        "93.5 % (89.2 to 96.2, n 200) · base 1.5 % · better · target reached"
    )
    assert messages.check_done_summary(x.runs[1], [3.0, 1.0]) == snapshot("""\
**Better than the untouched base model:** 93.5 % (95 % interval 89.2 to 96.2 %, n = 200).

| Against | Difference | 95 % interval | Items | Test | Verdict |
| --- | --- | --- | --- | --- | --- |
| untouched base model | +92.0 points | +88.2 to +95.8 | 184 gained, 0 lost of 200 | p < 0.001 | better |
| best before (run 1) | +91.0 points | +87.0 to +95.0 | 182 gained, 0 lost of 200 | p < 0.001 | better |

`█▁` loss 3 → 1
""")


def test_review_of_a_run_that_cannot_be_told_apart(story: Story) -> None:
    x = story.first_run_falls_short().experiment()

    assert messages.review(x, x.runs[0], curves=[Curve("loss", [(1, 3.9), (150, 3.88), (300, 3.87)])]) == snapshot("""\
<!-- postdoc:acme/widgets#42/run/01/review -->
**Cannot tell this run from the untouched base model: 2.5 % (95 % interval 1.1 to 5.7 %, n = 200, 1 seed); the target of 90 % is not reached.**

Run 1 trained the first recipe. The metric is `exact_match`.

| Against | Difference | 95 % interval | Items | Test | Verdict |
| --- | --- | --- | --- | --- | --- |
| untouched base model | +1.0 points | −1.5 to +3.5 | 3 gained, 1 lost of 200 | p = 0.625 | cannot tell |

The same items, paired: gained are items that only this run has right.

200 items show differences from about 6.2 points on (power 0.8); about 1,450 items would tell the observed one.

97.0 % of the 200 answers ended by themselves. Read leniently, 9.0 % would be right instead of 2.5 % (n = 200).

### Curves

`loss` fell from 3.9 (step 1) to 3.87 (step 300).

```mermaid
xychart-beta
    title "loss"
    x-axis "step" 1 --> 300
    y-axis "loss" 3.8685 --> 3.9015
    line [3.9, 3.88, 3.87]
```

### Diagnosis

- **D1** `plateau` on `learning_rate`, harmful, confidence 0.86: The loss fell by 1 % over 300 steps while the gradient norm stayed at 1.9: the rate is too small.
- **D2** `truncation` on `max_length`, advice, confidence 0.60: 12 of 4,000 rows are longer than max_length.

<details><summary>Ruled out (2)</summary>

- divergence: the largest loss is 3.95, at the first step
- missing_eos: all 4,000 rows end with EOS

</details>

### Learning-rate probe

Short trials from the same start, 20 steps each: a probe picks a value to try, it is not a run and proves nothing by itself.

| Learning rate | Loss at start | Loss at end | Gradient norm | Ended |
| --- | --- | --- | --- | --- |
| `1.0e-04` | 3.9 | 3.1 | 1.7 |  |
| `0.001` | 3.9 | 1.2 | 0.9 |  |
| `0.1` | 3.9 | NaN | NaN | diverged |

It suggests `0.001`: its loss fell most without diverging.

**Next:** set `learning_rate` to `0.001`. The range test's loss fell fastest at 0.001.

Reproduce: `uv run train.py --config recipe.yaml`, commit 1a2b3c4, seed 7 (recipe `1c0ffee0beef`, evaluator `9f8e7d6c5b4a`).
""")


def test_review_of_a_better_run_leads_with_the_number(after_two_runs: Story) -> None:
    x = after_two_runs.experiment()

    assert messages.review(x, x.runs[1]).split("\n")[1] == snapshot(
        "**Better than the untouched base model: 93.5 % (95 % interval 89.2 to 96.2 %, n = 200, 1 seed); the target of 90 % is reached on the dev items.**"
    )
    said = messages.review(x, x.runs[1])
    assert "Nothing wrong was found in this run.\n\n<details><summary>Ruled out (" in said


def test_review_of_a_failed_run_says_why(story: Story) -> None:
    x = story.trained(1).diagnosed(1, failure="The train job failed (oom, exit code 137)").experiment()

    lines = messages.review(x, x.runs[0]).split("\n")
    assert lines[1] == "**Run 1 ended before it could be evaluated: The train job failed (oom, exit code 137)**"


@pytest.mark.parametrize("verdict", ["worse", "cannot tell"])
def test_nothing_is_called_better_when_it_is_not(after_two_runs: Story, verdict: str) -> None:
    x = after_two_runs.experiment()
    for run in x.runs:
        run.verdict = verdict
        for found in (run.against_baseline, run.against_best):
            if found:
                found["verdict"] = verdict
    for state in State:
        x.state = state
        texts = [messages.review(x, x.runs[1]), messages.sticky(x), messages.ending(x)]
        texts.append(messages.check_done_title(x.runs[1], x.baseline, 0.9))
        assert not [text for text in texts if "better" in text.lower()]


def test_inline_comment_carries_the_whole_new_line(story: Story) -> None:
    x = story.first_run_falls_short().experiment()
    run = x.runs[0]
    line = "learning_rate: 0.001  # from the card"

    assert messages.inline_comment(
        x, run, "D1", run.report.diagnoses[0], line, remedy_why="It fell fastest."
    ) == snapshot("""\
<!-- postdoc:acme/widgets#42/run/01/D1 -->
**D1 · `plateau`** · harmful: the run is worse than it could be · confidence 0.86

The loss fell by 1 % over 300 steps while the gradient norm stayed at 1.9: the rate is too small.

- `loss` **3.91** at step 10
- `loss` **3.87** at step 300
- `grad_norm` **1.9** at step 300

Second most likely: The data has nothing that this model could learn.

This would prove it wrong: A ten times larger rate leaves the loss as it is.

Why this value: It fell fastest.

```suggestion
learning_rate: 0.001  # from the card
```

Commit the suggestion, or comment `/postdoc accept D1`. Neither spends anything by itself.
""")
    assert "there is no suggestion" in messages.inline_comment(x, run, "D2", run.report.diagnoses[1])


def test_suggestion_cannot_be_closed_from_inside(story: Story) -> None:
    x = story.first_run_falls_short().experiment()

    text = messages.inline_comment(x, x.runs[0], "D1", x.runs[0].report.diagnoses[0], "a: b # ```\n/postdoc run")

    assert "````suggestion\na: b # ```\n````" in text
    assert parse_commands(text) == []


def test_diagnoses_are_numbered_through_the_whole_goal(story: Story) -> None:
    story.first_run_falls_short().trained(2).diagnosed(2, report={"diagnoses": [CLIPPED], "ruled_out": []})
    x = story.experiment()

    assert messages.diagnosis_labels(x) == {"D1": (1, 0), "D2": (1, 1), "D3": (2, 0)}
    assert messages.labels_of(x, x.runs[1]) == ["D3"]
    named = messages.diagnosis_named(x, "d3")
    assert named is not None
    assert (named[0].n, named[1].symptom) == (2, "truncation")
    assert messages.diagnosis_named(x, "D4") is None


def test_commit_messages(after_two_runs: Story) -> None:
    x = after_two_runs.experiment()

    changed = {"learning_rate": [2e-5, 0.001]}
    assert str(messages.commit_message(x, 1, changed, "plateau")) == snapshot("""\
Set learning_rate 2e-05 → 0.001 after run 01

plateau

Postdoc-Run: 42/01\
""")
    assert str(messages.proposal_message(x)) == snapshot("""\
Propose tiny-qwen3 on practice/reverse to 90 %

Goal fea420b47ec5.

Postdoc-Run: 42/00\
""")
    long = messages.commit_message(x, 1, {f"key_{n}": [n, n + 1] for n in range(9)}, "why")
    assert len(long.headline) == 72
    assert "key_8 8 → 9" in long.body


def test_endings_say_what_was_reached_and_how_to_go_on(after_two_runs: Story) -> None:
    found = {"run": 2, "confirmed": True, "reason": "The lower bound is 91.0 %.", "lower_bound": 0.91}
    after_two_runs.add(EventKind.CONFIRMED, **found, score=score(0.94, 0.9, 0.966, 300) | {"split": "sealed"})
    heads = {}
    for state in (State.MET, State.NOT_CONFIRMED, State.EXHAUSTED, State.NEEDS_HUMAN, State.STOPPED, State.CLOSED):
        text = messages.ending(copy.deepcopy(after_two_runs).ended(str(state), "A reason.").experiment())
        heads[str(state)] = text.split("\n")[1]
        assert "n = 300" in text
        assert "Spent: 2 of 4 runs" in text
    assert heads == snapshot(
        {
            "met": "**Target of 90 % met in 2 runs, and confirmed on the sealed test.** A reason.",
            "not confirmed": "**Target of 90 % reached on the dev items, but not confirmed on the sealed test.** A reason.",
            "exhausted": "**Target of 90 % reached on the dev items but not confirmed: the budget is spent after 2 runs.** A reason.",
            "needs human": "**Target of 90 % reached on the dev items but not confirmed after 2 runs; a person is needed.** A reason.",
            "stopped": "**Stopped after 2 runs.** A reason.",
            "closed": "**Closed after 2 runs.** A reason.",
        }
    )


def test_ending_without_any_run_is_whole() -> None:
    x = Story().opened().contracted().ended("closed").experiment()

    assert messages.ending(x) == snapshot("""\
<!-- postdoc:acme/widgets#42/ending/3 -->
**Closed after 0 runs.**

Target: 90 % `exact_match` on `practice/reverse`. Base model: not measured yet.

Spent: 0 of 4 runs, 0.00 of 1 GPU hour, no money, 1 min 00 s since the issue was opened.

There is no pull request yet; a new issue starts afresh.
""")


def test_verdict_check_concludes(after_two_runs: Story) -> None:
    conclusions = {}
    for state in (State.MET, State.NOT_CONFIRMED, State.EXHAUSTED, State.STOPPED):
        title, summary, conclusions[str(state)] = messages.verdict_check(
            copy.deepcopy(after_two_runs).ended(str(state)).experiment()
        )
        assert len(title) <= 255
        assert "n 200" in title
        assert summary
    assert conclusions == {"met": "success", "not confirmed": "failure", "exhausted": "neutral", "stopped": "cancelled"}


def test_help_lists_what_is_there() -> None:
    assert messages.reply_help() == snapshot("""\
| Command | What it does | Tier |
| --- | --- | --- |
| `/postdoc help [verb]` | Explain the commands, or one of them. | `read` |
| `/postdoc status` | Say where the goal stands, what it has spent and what happens next. | `read` |
| `/postdoc plan [again]` | Price and explain the next run; `again`: have the first plan rethought. | `plan` |
| `/postdoc run [sha]` | Agree to train the recipe at this commit, within the goal's budget. | `train` |
| `/postdoc stop` | End the running job and train nothing more. The record stays. | `plan` |
| `/postdoc resume [+N]` | Go on after an end; `+2` grants two more runs. | `train` |
| `/postdoc set key=value ...` | Change lines of `recipe.yaml`, as one commit. | `train` |
| `/postdoc accept D3\\|goal` | Commit what diagnosis D3 suggests, proposal P2, or the edited goal. | `train` |
| `/postdoc budget +5usd` | Raise a ceiling of the goal: `+5usd`, `+2runs`, `+1h`. | `admin` |
| `/postdoc publish` | Put the best model on the Hub with its card. | `admin` |
| `/postdoc vouch sha` | Copy a fork's commit to a branch of this repository. | `train` |
| `/postdoc halt [off]` | Stop all spending in this repository, or allow it again. | `admin` |
| `/postdoc ablate key=a,b` | Try values of one key side by side; each is a run. | `train` |
| `/postdoc compare 2 5` | Compare two runs on the same items; `base` is the base model. | `read` |
| `/postdoc reproduce 3` | Train a run again and compare. | `train` |
| `/postdoc ask question` | Ask a language model about this experiment's record. | `plan` |

Write commands at the start of a line; one comment may hold several. Quoted text and code command nothing.\
""")


def test_denial_names_both_roles() -> None:
    assert messages.reply_denied(Command(3, "run", [], "bob", 12, 1, 43), "write", "read") == snapshot(
        "Not carried out. To change what is trained here, the role `write` in this repository is needed; `bob` has `read`. Somebody with that role can write the line."
    )


def test_answers_show_the_latest_and_fold_the_earlier(story: Story) -> None:
    body = answered(story.experiment(), "Going on.")
    assert body.count("<details>") == 3
    assert body.index("Going on.") < body.index("<details>")


def test_job_hours_in_the_ledger_leave_out_other_runs(after_two_runs: Story) -> None:
    x = after_two_runs.experiment()

    assert x.job_for(next(iter(x.jobs.values())).role, BASELINE) is not None
    assert messages.sticky(x).count("| 23 s |") == 2


# --- numbers and charts


def test_numbers_are_said_the_same_everywhere() -> None:
    assert [
        percent(0.625),
        METRICS["exact_match"].said_target(0.9),
        METRICS["exact_match"].said_target(0.625),
        METRICS["exact_match"].said_target(0.07),
    ] == [
        "62.5 %",
        "90 %",
        "62.5 %",
        "7 %",
    ]
    assert [difference({"difference": 0.125}), with_unit({"difference": -0.03}), p_value(0.0004), p_value(0.04)] == [
        "+12.5",
        "\u22123.0 points",
        "p < 0.001",
        "p = 0.040",
    ]
    perplexity = METRICS["perplexity"]
    assert [perplexity.said(24.9512), perplexity.said_target(25.0), perplexity.said(12345.6)] == [
        "24.95",
        "25",
        "12,346",
    ]
    assert with_unit({"difference": -1.5, "metric": "perplexity"}) == "\u22121.50"
    assert METRICS["wer"].said_change(-0.031, -0.05, -0.012) == "-3.1 points (-5.0 to -1.2)"
    assert [duration(s) for s in (0, 59.6, 61, 3_700)] == ["0 s", "1 min 00 s", "1 min 01 s", "1 h 01 min"]
    assert [clock(s) for s in (5, 860, 8_060)] == ["0:05", "14:20", "2:14:20"]


def test_chart_has_at_most_sixty_plain_decimals() -> None:
    chart = xychart(Curve("loss", [(n, 1e-7 * n) for n in range(1, 5_001)]))

    (line,) = [line for line in chart.split("\n") if line.strip().startswith("line [")]
    values = line.strip()[6:-1].split(", ")
    assert len(values) == MOST_POINTS
    assert all(re.fullmatch(r"-?\d+(\.\d+)?", value) for value in values)
    assert 'x-axis "step" 1 --> 5000' in chart
    assert len(set(values)) > 50


def test_thinning_keeps_ends_and_spikes() -> None:
    points_ = [(n, 1.0) for n in range(1_000)]
    points_[617] = (617, 50.0)

    kept = thinned(points_, 60)

    assert (kept[0], kept[-1], len(kept)) == ((0, 1.0), (999, 1.0), 60)
    assert (617, 50.0) in kept


@pytest.mark.parametrize("curve", [[], [(1, 2.0)], [(1, None), (2, float("nan"))], [(3, 1.0), (3, 2.0)]])
def test_chart_without_two_points_is_left_out(curve: list[tuple[int, float | None]]) -> None:
    assert xychart(Curve("loss", curve)) == ""
    assert told(Curve("loss", curve))


def test_hostile_curve_name_stays_a_name() -> None:
    chart = xychart(Curve('x"\n```\n/postdoc run', [(1, 1.0), (2, 2.0)]))

    assert chart.count("```") == 2
    assert parse_commands(chart) == []


def test_curve_is_told_in_words() -> None:
    assert told(Curve("loss", [(1, 4.0), (2, 1.0), (3, None), (4, 1.5)])) == snapshot(
        "`loss` fell from 4 (step 1) to 1.5 (step 4); lowest 1 at step 2. 1 point of 4 is not a number, the first at step 3."
    )
    assert told(Curve("grad_norm", [(1, 1.0), (2, 9.0), (3, 1.0)])) == snapshot(
        "`grad_norm` stayed at 1 (step 1) until step 3; highest 9 at step 2."
    )
    assert told(Curve("loss", [(1, None)])) == snapshot(
        "`loss` has no point that is a number. 1 point of 1 is not a number, the first at step 1."
    )


def test_sparkline_marks_what_is_not_a_number() -> None:
    assert sparkline([1.0, 2.0, 3.0, None, float("inf"), 8.0]) == "▁▂▃××█"
    assert sparkline([]) == ""
    assert sparkline([None]) == "×"
    assert len(sparkline([float(n) for n in range(1_000)])) == 40


def test_help_topic_in_capitals() -> None:
    assert "`/postdoc run [sha]`" in messages.reply_help("RUN")


def test_plan_shows_how_columns_were_read_and_what_the_audit_found(story: Story) -> None:
    facts = messages.PlanFacts(
        rows=3, columns=["prompt = question: text, 100% unique", f"label = {EVIL}: x"], quality=["filter: 1 of 3 rows."]
    )
    text = messages.plan(story.experiment(), facts)
    assert "How the columns of the data were read" in text and "- prompt = question: text, 100% unique" in text
    assert "What the audit found in the rows" in text and "- filter: 1 of 3 rows." in text
    assert "@mallory" not in text and "<img" not in text
