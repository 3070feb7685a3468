"""The stepper itself: what it reads is what GitHub's own client library writes, and what it cannot play it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.actions.conftest import ROOT, Place
from tests.actions.file_commands import FileCommandError, pairs
from tests.actions.judge import ExpressionError
from tests.actions.standins import Refused
from tests.actions.stepper import JobRun

CORE = ROOT / "tests" / "node" / "actions_core.mjs"


def steps(place: Place, text: str, head: str = "", **event: object) -> JobRun:
    body = "".join(f"      {line}\n" for line in text.splitlines())
    top = "name: n\non: [push, workflow_dispatch]\npermissions: {}\njobs:\n  one:\n    runs-on: x\n"
    return place.run(f"{top}{head}    steps:\n{body}", "push", event)


def test_what_githubs_own_library_writes_is_read(place: Place) -> None:
    run = steps(
        place,
        f"- id: core\n  run: node {CORE}\n  shell: bash\n"
        '- run: printf \'%s|\' "$OF_ALL" "${PATH%%:*}" "$LINES_"\n  shell: bash\n'
        "  env:\n    LINES_: ${{ steps.core.outputs.lines }}\n"
        "- run: echo ${{ fromJSON(steps.core.outputs.object).a[1] }}\n  shell: sh\n",
    )
    assert run.conclusion == "success", run.log.text
    assert run.steps[0].outputs["plain"] == "value"
    assert json.loads(run.steps[0].outputs["object"]) == {"a": [1, "ü"]}
    assert "one\ntwo|/opt/tool/bin|one\ntwo=2\nthree<<END\nEND|" in run.log.text
    assert "ü" in run.log.lines
    error, notice = run.annotations
    assert (error.message, error.title, error.file, error.line) == (
        "bad: 100%\nand on", "A, title: here", "a,b:c.yml", 7,
    )  # fmt: skip
    assert notice.message == "fine"
    assert "this is *** now" in run.log.lines
    assert "hush-hush" not in run.log.text
    assert "<h1>Title</h1>" in run.summary
    assert "<td>2</td>" in run.summary


@pytest.mark.parametrize("content", ["bare\n", "name<<END\nno end\n", "=value\n", "<<END\nx\nEND\n"])
def test_malformed_file_command_fails_the_step(place: Place, content: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text(content)
    with pytest.raises(FileCommandError):
        pairs(tmp_path / "file")
    (tmp_path / "bad").write_text(content)
    run = steps(place, f'- run: cat {tmp_path / "bad"} >> "$GITHUB_OUTPUT"\n')
    assert run.conclusion == "failure"


def test_byte_order_mark_and_the_first_of_two_signs_decide(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"\xef\xbb\xbfa=b<<c\nd<<E=F\n1\nE=F\n")
    assert pairs(tmp_path / "file") == {"a": "b<<c", "d": "1"}


def test_failure_skips_what_does_not_ask_for_it_and_outputs_of_the_failed_stay(place: Place) -> None:
    run = steps(
        place,
        "- id: bad\n  run: |\n    echo said=it >> $GITHUB_OUTPUT\n    exit 3\n"
        "- run: echo skipped\n"
        "- if: always() && steps.bad.outputs.said == 'it'\n  run: echo '${{ steps.bad.outcome }}'\n"
        "- if: ${{ failure() }}\n  run: echo here\n",
    )
    assert [each.conclusion for each in run.steps] == ["failure", "skipped", "success", "success"]
    assert "failure" in run.log.lines
    forgiven = steps(
        place, "- id: bad\n  run: exit 1\n  continue-on-error: true\n- run: echo '${{ steps.bad.outcome }}'\n"
    )
    assert forgiven.conclusion == "success"
    assert [each.outcome for each in forgiven.steps] == ["failure", "success"]


def test_stopped_commands_and_masks_hold_for_the_lines_after_them(place: Place) -> None:
    run = steps(
        place,
        '- run: |\n    echo "::stop-commands::t1"\n    echo "::error::not mine"\n    echo "::t1::"\n'
        '    echo "::warning file=a.py,line=2::mine"\n    echo "::add-mask::abc"\n    echo xabcx\n'
        '    echo "::set-output name=a::1"\n',
    )
    assert [(each.level, each.message, each.file, each.line) for each in run.annotations] == [
        ("warning", "mine", "a.py", 2)
    ]
    assert "x***x" in run.log.lines
    assert run.steps[0].outputs == {}


@pytest.mark.parametrize(
    ("text", "head"),
    [
        ("- uses: somebody/else@0000000000000000000000000000000000000000\n", ""),
        ("- uses: actions/checkout@v7\n", ""),
        ("- uses: actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1\n  with: {rev: x}\n", ""),
        ("- run: echo\n  timeout-minutes: 3\n", ""),
        ("- run: echo\n  shell: fish\n", ""),
        ("- run: echo\n", "    strategy: {matrix: {a: [1, 2]}}\n"),
        ("- run: echo\n", "    container: debian\n"),
    ],
)
def test_what_cannot_be_played_faithfully_is_refused_loudly(place: Place, text: str, head: str) -> None:
    with pytest.raises(Refused):
        steps(place, text, head)


def test_broken_and_unknown_expressions_are_errors(place: Place) -> None:
    with pytest.raises(ExpressionError):
        steps(place, "- run: echo ${{ secret.key }}\n")
    with pytest.raises(ExpressionError):
        steps(place, "- if: success(\n  run: echo\n")


def test_composite_action_sees_its_inputs_and_no_secrets(place: Place) -> None:
    action = (
        "name: a\ndescription: d\ninputs:\n  word: {description: d, default: '${{ github.actor }}'}\n"
        "outputs:\n  said: {description: d, value: '${{ steps.s.outputs.said }}'}\n"
        "runs:\n  using: composite\n  steps:\n    - id: s\n      shell: bash\n      env: {WORD: '${{ inputs.word }}'}\n"
        '      run: echo "said=$WORD" >> "$GITHUB_OUTPUT"\n'
    )
    place.push(
        {"act/action.yml": action, "secretive/action.yml": action.replace("inputs.word", "secrets.GITHUB_TOKEN")}
    )
    checkout = "- uses: actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1\n"
    run = steps(place, f"{checkout}- id: a\n  uses: ./act\n- run: echo '[${{{{ steps.a.outputs.said }}}}]'\n")
    assert "[ada]" in run.log.lines
    with pytest.raises(ExpressionError):
        steps(place, f"{checkout}- uses: ./secretive\n")


def test_checkout_leaves_credentials_only_where_asked(place: Place) -> None:
    checkout = "- uses: actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1\n"
    show = "- run: git config --list --local\n"
    token = place.token()
    assert "extraheader" in steps(place, checkout + show).log.text
    run = steps(place, checkout + "  with: {persist-credentials: false}\n" + show)
    assert "extraheader" not in run.log.text
    assert token not in run.log.text


def test_artifact_leaves_hidden_files_behind_and_conflicts(place: Place) -> None:
    upload = "- uses: actions/upload-artifact@bbbca2ddaa5d8feaa63e36b76fdaad77386f024f\n  with: {name: a, path: out}\n"
    run = steps(place, "- run: mkdir -p out/in; touch out/in/.hidden out/in/file\n" + upload)
    assert [p.relative_to(run.artifact("a")).as_posix() for p in run.artifact("a").rglob("*")] == ["in", "in/file"]
    assert steps(place, "- run: mkdir out; touch out/file\n" + upload + upload).conclusion == "failure"
    assert steps(place, "- run: mkdir out\n" + upload).conclusion == "success"


def test_processes_with_the_tracking_id_end_with_the_job(place: Place, tmp_path: Path) -> None:
    beat = tmp_path / "beat"
    run = steps(place, f"- run: (setsid sh -c 'while :; do date +%N > {beat}; sleep 0.05; done' > /dev/null 2>&1 &)\n"
                       f"- run: until [ -s {beat} ]; do sleep 0.02; done\n")  # fmt: skip
    assert run.conclusion == "success"
    first = beat.read_text()
    run = steps(place, "- run: sleep 0.3\n")
    assert beat.read_text() == first
