"""The sealed record: what it carries, and whose records are read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.domain.experiment import Event, EventKind, Experiment, NewEvent
from bot.domain.goal import GoalId
from bot.errors import SettingsError
from bot.loop.database import open_database
from bot.loop.journal import Journal
from bot.loop.record import BadRecord, Record, seal_key
from bot.practice.auth import new_key_pair

GOAL = GoalId("acme/speller#1")
KEY, OTHER = b"k" * 32, b"o" * 32
TOKEN = "ghs_" + "a1B2" * 9


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    found = Journal(open_database(f"sqlite:///{tmp_path / 'postdoc.sqlite'}"))
    found.append(GOAL, [NewEvent(EventKind.GOAL_OPENED, "opened", {"title": "Spell", "body": "é\r\nü\u2028"})])
    changed = {"learning_rate": [2e-05, 0.003], "a": [None, 1]}
    found.append(GOAL, [NewEvent(EventKind.REVISED, "revised/1", {"changed": changed, "head_sha": "1" * 40})])
    return found


def test_record_reads_back_as_the_journal_was(journal: Journal) -> None:
    record = Record(journal, [KEY])
    events = record.read(GOAL, record.sealed(GOAL, journal.read(GOAL)))
    assert tuple(events) == tuple(journal.read(GOAL))
    assert list(events[1].data["changed"]) == ["learning_rate", "a"]  # the order in which a change names its keys


def test_record_holds_the_journal_up_to_the_decision_and_no_further(journal: Journal) -> None:
    x = Experiment(GOAL, length=1, folder="experiments/0001-reverse")
    files = Record(journal, [KEY]).files(x)
    assert set(files) == {f"{x.folder}/journal.jsonl", f"{x.folder}/.gitattributes"}
    assert len(Record(journal, [KEY]).read(GOAL, files[f"{x.folder}/journal.jsonl"])) == 1


def test_restored_journal_keeps_places_and_times(journal: Journal, tmp_path: Path) -> None:
    record = Record(journal, [KEY])
    other = Journal(open_database(f"sqlite:///{tmp_path / 'other.sqlite'}"))
    assert other.restore(GOAL, record.read(GOAL, record.sealed(GOAL, journal.read(GOAL))))
    assert tuple(other.read(GOAL)) == tuple(journal.read(GOAL))
    assert not other.restore(GOAL, journal.read(GOAL))
    [added] = other.append(GOAL, [NewEvent(EventKind.STOPPED, "stopped/1", {"by": "ada"})])
    assert added.seq == 2


def test_records_of_others_are_refused(journal: Journal) -> None:
    ours = Record(journal, [KEY])
    sealed = ours.sealed(GOAL, journal.read(GOAL))
    with pytest.raises(BadRecord, match="another goal"):
        ours.read(GoalId("acme/speller#2"), sealed)
    with pytest.raises(BadRecord, match="another private key"):
        Record(journal, [OTHER]).read(GOAL, sealed)
    renamed = sealed.replace(b'"goal":"acme/speller#1"', b'"goal":"acme/speller#2"')
    with pytest.raises(BadRecord, match="another private key"):
        ours.read(GoalId("acme/speller#2"), renamed)


def test_record_sealed_with_a_retired_key_is_read_and_the_present_key_seals(journal: Journal) -> None:
    before = Record(journal, [OTHER]).sealed(GOAL, journal.read(GOAL))
    now = Record(journal, [KEY, OTHER])
    assert len(now.read(GOAL, before)) == 2
    assert len(Record(journal, [KEY]).read(GOAL, now.sealed(GOAL, journal.read(GOAL)))) == 2


@given(data=st.data())
def test_no_changed_byte_passes(data: st.DataObject) -> None:
    record = Record(Journal(open_database("sqlite://")), [KEY])
    sealed = record.sealed(GOAL, [Event(0, EventKind.GOAL_OPENED, "opened", 1.5, {"title": "Spell"})])
    at = data.draw(st.integers(0, len(sealed) - 2))
    byte = data.draw(st.integers(0, 255).filter(lambda value: value != sealed[at]))
    with pytest.raises(BadRecord):
        record.read(GOAL, sealed[:at] + bytes([byte]) + sealed[at + 1 :])


@given(content=st.binary(max_size=300) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace")))
def test_nonsense_is_refused_and_nothing_else_happens(content: bytes) -> None:
    record = Record(Journal(open_database("sqlite://")), [KEY])
    with pytest.raises(BadRecord):
        record.read(GOAL, content)
    with pytest.raises(BadRecord):
        record.read(GOAL, b"[" * 5000 + content)


def test_line_taken_out_added_or_moved_is_refused(journal: Journal) -> None:
    record = Record(journal, [KEY])
    first, second, seal = record.sealed(GOAL, journal.read(GOAL)).splitlines(keepends=True)
    for forged in (first + seal, second + first + seal, first + second + second + seal, first + second, seal, b""):
        with pytest.raises(BadRecord):
            record.read(GOAL, forged)
    shorter = record.sealed(GOAL, journal.read(GOAL)[:1])
    assert len(record.read(GOAL, shorter)) == 1  # genuine, and older: the longest that is found is the one restored


def test_event_of_a_newer_version_is_refused_with_the_reason(journal: Journal) -> None:
    record = Record(journal, [KEY])
    event = journal.read(GOAL)[0]
    object.__setattr__(event, "kind", "dreamt")
    with pytest.raises(BadRecord, match="newer version"):
        record.read(GOAL, record.sealed(GOAL, [event]))


def test_secrets_and_this_machines_folders_are_blanked(journal: Journal, tmp_path: Path) -> None:
    secret = "the-webhook-secret-of-this-server"
    said = f"{TOKEN} {secret} {tmp_path}/data/jobs/x hf_{'x' * 34}"
    journal.append(GOAL, [NewEvent(EventKind.CRASHED, "crashed/2", {"error": said, "list": [{"deep": said}]})])
    record = Record(journal, [KEY], known_secrets=[secret], folders=[tmp_path / "data"])
    sealed = record.sealed(GOAL, journal.read(GOAL))
    for canary in (TOKEN, secret, str(tmp_path), "hf_x"):
        assert canary.encode() not in sealed
    restored = record.read(GOAL, sealed)[2]
    assert restored.data["error"].endswith("…/jobs/x [redacted]")
    assert json.dumps(restored.data["list"]) == json.dumps([{"deep": restored.data["error"]}])


def test_seal_key_is_the_private_keys_and_no_other_keys() -> None:
    pem, other = new_key_pair()[0], new_key_pair()[0]
    assert seal_key(pem) == seal_key(pem.replace("\n", "\r\n"))
    assert seal_key(pem) != seal_key(other)
    with pytest.raises(SettingsError, match="private key"):
        seal_key("-----BEGIN RSA PRIVATE KEY-----\nnonsense\n-----END RSA PRIVATE KEY-----\n")
