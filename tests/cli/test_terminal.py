"""The live display, drawn into a string."""

from __future__ import annotations

import io
import re

from rich.console import Console

from bot.practice.demo import summary_table
from bot.practice.narration import Activity, Entry, Story
from bot.practice.terminal import Screen, duration, elapsed
from tests.cli.recorded import GOAL, PAGE, rows, story

START = rows()[0]["at"]
PLAIN = """\
 0:00  contract: exact_match on practice/reverse of at least 90 %, starting from postdoc/tiny-qwen3
         at most 4 runs, 0.5 h of jobs, 0 USD · goal hash f3f3685ba8b0
         starting recipe: brought by the goal (learning_rate 2.0e-05, lr_scheduler_type cosine, max_steps 100, per_device_train_batch_size 32, max_length 2048)
 0:15  sandbox: jobs run in the tier bubblewrap+cgroup
 0:15  baseline: 0.0 % (0.0 to 1.9, n = 200) · the untouched base model
 0:16  plan: 800 rows to train on, 100 to validate
         licences: apache-2.0 (base model), apache-2.0 (data/reverse)
         contamination scan: clean, 0 of 800 rows flagged
 0:17  proposed: pull request #2
         http://127.0.0.1:8080/acme/tiny-speller/pull/2
 0:17  consent: given by the repository's policy: 4 runs, 0.5 h of jobs, 0 USD
 0:17  run 1: sft on b460934 · the starting recipe
 0:35  run 1: trained in 17.0 s
 0:46  run 1: 0.0 % (0.0 to 1.9, n = 200) · cannot tell it from the baseline (+0.0 points, p = 1)
 0:46  diagnosis: plateau · recipe.yaml line 8 (learning_rate) · harmful, 90 % sure
         The loss moved only from 7.146 (step 5) to 5.244 (step 100), and the score is 0 where 0.9 is the target: learning_rate 2e-5 is too low for the 20 steps logged.
 0:46  probe: a learning-rate range test follows (not a run): 6.3e-05, 0.0002, 0.00063, 0.002, 0.0063
 1:15  probe: range test of 20 steps a rate: suggests 0.0063
         6.3e-05  loss 6.80 → 5.36
         0.0002   loss 6.80 → 3.38
         0.00063  loss 6.80 → 1.87
         0.002    loss 6.80 → 1.18
         0.0063   loss 6.80 → 0.96
 1:15  review: of run 1 posted on pull request #2, with its line comments
 1:16  commit: 4c54cab learning_rate 2e-05 → 0.0063
 1:16  run 2: sft on 4c54cab · learning_rate 2e-05 → 0.0063
 1:55  run 2: trained in 38.6 s
 2:10  run 2: 99.5 % (97.2 to 99.9, n = 200) · better than the baseline by 99.5 points (p < 0.001)
 2:10  diagnosis: nothing to blame
 2:10  review: of run 2 posted on pull request #2
 2:24  sealed: 98.5 % (95.7 to 99.5, n = 200) · on items that no run has seen
 2:25  met: 98.5 % on 200 sealed items (lower bound 96.2 %) reaches the target of 90.0 % and lies above the baseline of 0.0 %.
"""  # noqa: E501 - the display's own lines


def screen(*, terminal: bool, width: int = 80, now: float = START) -> tuple[Screen, io.StringIO]:
    written = io.StringIO()
    console = Console(
        file=written, force_terminal=terminal, color_system=None, width=width if terminal else 400, highlight=False,
        legacy_windows=False,
    )  # fmt: skip
    return Screen(console, clock=lambda: now, started_at=START), written


def drawn(written: io.StringIO) -> list[str]:
    """The lines without the terminal's control sequences."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written.getvalue()).replace("\r", "").splitlines()


def test_plain_lines_tell_the_whole_recorded_goal() -> None:
    shown, written = screen(terminal=False)
    with shown:
        shown.tell(Story(GOAL, PAGE).heard(rows()))
    assert written.getvalue() == PLAIN


def test_plain_mode_writes_no_control_sequence() -> None:
    shown, written = screen(terminal=False)
    with shown:
        shown.show(Activity("training run 1", 10, 100, 1.0, 9.0))
        shown.tell(Story(GOAL, PAGE).heard(rows()))
    assert "\x1b" not in written.getvalue()


def test_terminal_lines_fit_eighty_columns_except_addresses() -> None:
    shown, written = screen(terminal=True)
    with shown:
        shown.tell(Story(GOAL, PAGE).heard(rows()))
    assert [line for line in drawn(written) if len(line) > 80 and "http" not in line] == []
    assert any("diagnosis  plateau" in line for line in drawn(written))


def test_number_and_sign_stay_on_one_line() -> None:
    shown, written = screen(terminal=True, width=60)
    with shown:
        shown.tell([Entry(START, "run 1", f"{'x ' * 12}better by 99.5 points (p = 1) of 90 %")])
    text = "\n".join(drawn(written))
    assert "p = 1" in text
    assert "90 %" in text


def test_progress_line_shows_bar_step_loss_and_time_left() -> None:
    shown, written = screen(terminal=True)
    with shown:
        shown.show(Activity("training run 1", 50, 100, 1.3141, 4.2))
    line = next(line for line in drawn(written) if "training run 1" in line)
    assert line.strip() == f"training run 1  {'━' * 10}{'─' * 10}  50/100 · loss 1.314 · 4 s left"


def test_progress_line_is_not_drawn_again_while_nothing_changes() -> None:
    shown, written = screen(terminal=True)
    with shown:
        activity = Activity("training run 1", 50, 100, 1.3141, 4.2)
        shown.show(activity)
        before = len(written.getvalue())
        for _ in range(20):
            shown.show(activity)
        assert len(written.getvalue()) == before


def test_job_without_steps_shows_its_elapsed_time() -> None:
    shown, written = screen(terminal=True, now=START + 7)
    with shown:
        shown.show(Activity("evaluating run 1", since=START))
    assert any(line.strip() == "evaluating run 1  7 s" for line in drawn(written))


def test_plain_progress_comes_every_few_seconds_only() -> None:
    moments = iter(range(100))
    shown, written = screen(terminal=False)
    shown.clock = lambda: START + next(moments)
    with shown:
        for step in range(1, 13):
            shown.show(Activity("training run 1", step, 100, 1.0, 9.0))
    assert len(written.getvalue().splitlines()) == 3


def test_second_goals_entries_carry_its_number() -> None:
    shown, written = screen(terminal=False)
    with shown:
        shown.tell([Entry(START, "baseline", "0.0 %")], goal="#3")
    assert written.getvalue() == " 0:00  baseline: #3 0.0 %\n"


def test_summary_table_gives_each_run_its_value_and_verdict() -> None:
    shown, written = screen(terminal=False)
    shown.table(summary_table(story().experiment))
    lines = [" ".join(line.split()) for line in written.getvalue().splitlines()]
    assert lines == [
        "run changed value verdict seconds",
        "base 0.0 % (0.0 to 1.9) 14",
        "1 the starting recipe 0.0 % (0.0 to 1.9) cannot tell 58",
        "2 learning_rate 2e-05 → 0.0063 99.5 % (97.2 to 99.9) better 54",
        "sealed run 2 on unseen items 98.5 % (95.7 to 99.5) confirmed 13",
    ]


def test_times_are_written_for_people() -> None:
    assert [elapsed(7), elapsed(760), elapsed(3723)] == ["0:07", "12:40", "1:02:03"]
    assert [duration(8.4), duration(180), duration(9000)] == ["8 s", "3 min", "2.5 h"]
