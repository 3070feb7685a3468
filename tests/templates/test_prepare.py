"""data/prepare.py as a process: what it reads, keeps, drops with which reason, and refuses in one line."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from bot.data.columns import ROLES
from bot.domain.methods import METHODS
from bot.domain.scripts import PREPARE, data_files
from bot.practice.laying import lay_out


class Folder:
    """A data job's folder."""

    def __init__(self, path: Path, script: Path) -> None:
        self.path, self.script = path, script
        (path / "inputs").mkdir()

    def source(self, rows: list[Any], name: str = "team.jsonl") -> None:
        file = self.path / "inputs" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))

    def write(self, name: str, content: str | bytes) -> None:
        data = content if isinstance(content, bytes) else content.encode()
        (self.path / "inputs" / name).write_bytes(data)

    def run(
        self, recipe: str = "", inputs: bool = True, isolated: Sequence[str] = ("-S", "-E", "-s")
    ) -> subprocess.CompletedProcess[str]:
        (self.path / "recipe.yaml").write_text(recipe)
        where = ["--inputs", "inputs"] if inputs else []
        # -S -E -s: nothing but the standard library and what lies beside the script may be needed.
        command = [sys.executable, *isolated, str(self.script), "--config", "recipe.yaml", *where, "--output", "data"]
        return subprocess.run(command, cwd=self.path, capture_output=True, text=True, timeout=60)

    def rows(self, name: str = "train") -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.path / "data" / f"{name}.jsonl").read_text().splitlines()]

    @property
    def build(self) -> dict[str, Any]:
        return json.loads((self.path / "data" / "build.json").read_text())


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """prepare.py with what it imports, and nothing else of ours in reach."""
    experiment = tmp_path_factory.mktemp("experiment")
    lay_out(data_files(), experiment)
    return experiment / PREPARE


@pytest.fixture
def folder(tmp_path: Path, script: Path) -> Folder:
    return Folder(tmp_path, script)


def pairs(n: int) -> list[dict[str, str]]:
    return [{"prompt": f"reverse w{i}", "completion": f"{i}w"} for i in range(n)]


def prompts(rows: list[dict[str, Any]]) -> list[str]:
    return [row["prompt"][-1]["content"] for row in rows]


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """The one line that a refusal prints."""
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and "Traceback" not in done.stderr
    return done.stderr.strip()


def test_rows_come_out_in_trl_conversational_format(folder: Folder) -> None:
    folder.source(pairs(3))
    assert folder.run().returncode == 0
    assert {json.dumps(row) for row in folder.rows()} == {
        json.dumps(
            {
                "prompt": [{"role": "user", "content": row["prompt"]}],
                "completion": [{"role": "assistant", "content": row["completion"]}],
            }
        )
        for row in pairs(3)
    }


def test_build_names_sources_rows_and_digests(folder: Folder) -> None:
    folder.source(pairs(4), "b/two.jsonl")
    folder.source([{"prompt": "x", "completion": "y"}], "a.jsonl")
    folder.run()
    build = folder.build
    assert [(source["path"], source["rows"]) for source in build["sources"]] == [("a.jsonl", 1), ("b/two.jsonl", 4)]
    source = (folder.path / "inputs" / "a.jsonl").read_bytes()
    assert build["sources"][0]["sha256"] == hashlib.sha256(source).hexdigest()
    assert build["rows"] == 5 and build["validation_rows"] == 0
    assert build["sha256"] == hashlib.sha256((folder.path / "data" / "train.jsonl").read_bytes()).hexdigest()


def test_null_and_empty_rows_are_dropped_and_counted(folder: Folder) -> None:
    broken = [
        {"prompt": None, "completion": "y"},
        {"prompt": "  ", "completion": "y"},
        {"prompt": "x", "completion": None},
        {"prompt": "x"},
        "not json",
        "[1]",
        "",
    ]
    folder.source(pairs(2) + broken)
    assert folder.run().returncode == 0
    assert len(folder.rows()) == 2
    assert folder.build["dropped"] == {
        "empty prompt": 2, "empty completion": 2, "not JSON": 1, "not an object": 1, "duplicate": 0,
    }  # fmt: skip


@pytest.mark.parametrize(("setting", "kept"), [("", 5), ("data_deduplicate: true", 5), ("data_deduplicate: false", 15)])
def test_duplicates_are_dropped_unless_the_recipe_keeps_them(folder: Folder, setting: str, kept: int) -> None:
    folder.source(pairs(5) * 2 + [{"prompt": row["prompt"] + " ", "completion": row["completion"]} for row in pairs(5)])
    folder.run(setting + "\n")
    assert len(folder.rows()) == kept
    assert folder.build["repeated_rows"] == 10


def test_order_follows_the_seed_alone(folder: Folder) -> None:
    folder.source(pairs(50))
    orders = []
    for seed in (0, 0, 1):
        folder.run(f"seed: {seed}\n")
        orders.append(prompts(folder.rows()))
    assert orders[0] == orders[1] != orders[2]
    assert orders[0] != [row["prompt"] for row in pairs(50)]


def test_at_most_max_rows_are_kept(folder: Folder) -> None:
    folder.source(pairs(50))
    folder.run("data_max_rows: 20\n")
    assert len(folder.rows()) == 20 and folder.build["dropped"]["over data_max_rows"] == 30


def test_no_prompt_is_on_both_sides_of_the_validation_split(folder: Folder) -> None:
    folder.source(pairs(100) * 3)
    folder.run("data_deduplicate: false\ndata_validation_rows: 10\n")
    train, validation = prompts(folder.rows()), prompts(folder.rows("validation"))
    assert len(validation) == 10 and not set(train) & set(validation)
    assert len(train) == 270 and folder.build["dropped"]["repeats a validation prompt"] == 20


def test_validation_file_of_an_earlier_build_is_removed(folder: Folder) -> None:
    folder.source(pairs(20))
    folder.run("data_validation_rows: 2\n")
    assert len(folder.rows("validation")) == 2
    folder.run("data_validation_rows: 0\n")
    assert not (folder.path / "data" / "validation.jsonl").exists()


@pytest.mark.parametrize(
    ("row", "prompt", "completion"),
    [
        ({"question": "2+2?", "answer": 4}, "2+2?", "4"),
        ({"instruction": "Reverse.", "input": "abc", "output": "cba"}, "Reverse.\n\nabc", "cba"),
        ({"id": "7", "Query": "hi", "Response": "hello", "source": "chat"}, "hi", "hello"),
        ({"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]}, "hi", "ho"),
    ],
)
def test_columns_are_found_with_evidence(folder: Folder, row: dict[str, Any], prompt: str, completion: str) -> None:
    folder.source([row])
    assert folder.run().returncode == 0
    built = folder.rows()[0]
    assert (built["prompt"][-1]["content"], built["completion"][0]["content"]) == (prompt, completion)
    assert "in the first 1 rows: " in folder.build["columns"]["evidence"]


def test_only_the_last_turn_of_a_conversation_is_the_completion(folder: Folder) -> None:
    turns = [{"role": role, "content": text} for role, text in zip(["user", "assistant"] * 2, "abcd", strict=True)]
    folder.source([{"messages": turns}, {"messages": turns[:1]}])
    folder.run()
    assert [(len(row["prompt"]), row["completion"][0]["content"]) for row in folder.rows()] == [(3, "d")]
    assert folder.build["dropped"]["messages without an answer"] == 1


def test_columns_named_in_the_recipe_win(folder: Folder) -> None:
    folder.source([{"prompt": "x", "completion": "wrong", "gold": "right"}])
    folder.run("data_completion_column: gold # the checked one\n")
    assert folder.rows()[0]["completion"][0]["content"] == "right"


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        (
            "data_prompt_column: instruction\n",
            "instruction is not a column of the data; the columns are alpha, beta",
        ),
        ("", "name one of them in data_prompt_column and data_completion_column"),
        ("data_max_rows: many\n", "data_max_rows needs a whole number, not 'many'"),
        ("data_max_rows: 0\n", "leaves nothing to train on"),
        ("data_deduplicate: sometimes\n", "data_deduplicate needs true or false"),
        ("data_dedup: true\n", "unknown key data_dedup"),
    ],
)
def test_wrong_settings_are_refused_in_one_line(folder: Folder, recipe: str, words: str) -> None:
    folder.source([{"alpha": "a", "beta": "b"}])
    assert words in refused(folder.run(recipe))


def test_validation_takes_at_most_a_tenth_of_the_distinct_prompts(folder: Folder) -> None:
    folder.source(pairs(30) * 20)
    folder.run("data_deduplicate: false\ndata_validation_rows: 100\n")
    assert len(folder.rows("validation")) == 3 and len(set(prompts(folder.rows()))) == 27


def test_data_without_any_usable_row_is_refused_with_the_counts(folder: Folder) -> None:
    folder.source([{"prompt": "", "completion": "x"}] * 3)
    assert "the question is missing: prompt is filled in 0% of the first 3 rows" in refused(folder.run())
    assert "dropped 3 empty prompt" in refused(folder.run("data_prompt_column: prompt\n"))


def test_missing_source_is_named(folder: Folder) -> None:
    assert "no .jsonl, .ndjson, .json, .csv, .tsv, .parquet file in inputs" in refused(folder.run())
    assert "there is no data/gone.jsonl" in refused(folder.run("data_sources: data/gone.jsonl\n", inputs=False))


def test_sources_of_the_recipe_are_read_by_hand(folder: Folder) -> None:
    folder.source(pairs(3), "one.jsonl")
    folder.source(pairs(6)[3:], "two/more.jsonl")
    done = folder.run('data_sources: "inputs/one.jsonl, inputs/two"\n', inputs=False)
    assert done.returncode == 0 and len(folder.rows()) == 6


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.json", '[{"prompt": "a, b", "completion": "c\\nd"}, {"prompt": "e", "completion": "f"}]'),
        ("rows.json", '{"prompt": "a, b", "completion": "c\\nd"}\n{"prompt": "e", "completion": "f"}\n'),
        ("rows.json", '{"data": [{"prompt": "a, b", "completion": "c\\nd"}, {"prompt": "e", "completion": "f"}]}'),
        ("rows.ndjson", '{"prompt": "a, b", "completion": "c\\nd"}\n{"prompt": "e", "completion": "f"}'),
        ("rows.csv", '\ufeffprompt,completion\r\n"a, b","c\nd"\r\ne,f\r\n'),
        ("rows.tsv", 'prompt\tcompletion\na, b\t"c\nd"\ne\tf\n'),
        ("rows.CSV", 'prompt,completion\n"a, b","c\nd"\ne,f\n'),
    ],
)
def test_other_files_of_rows_are_read_alike(folder: Folder, name: str, content: str) -> None:
    folder.write(name, content)

    assert folder.run().returncode == 0

    assert sorted((row["prompt"][0]["content"], row["completion"][0]["content"]) for row in folder.rows()) == [
        ("a, b", "c\nd"),
        ("e", "f"),
    ]
    assert folder.build["sources"][0]["rows"] == 2
    assert folder.build["sources"][0]["sha256"] == hashlib.sha256(content.encode()).hexdigest()


def test_single_chat_in_a_json_file_is_one_row(folder: Folder) -> None:
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]
    folder.write("chat.json", json.dumps({"messages": turns}))

    assert folder.run().returncode == 0
    assert folder.rows() == [{"prompt": turns[:1], "completion": turns[1:]}]


def test_table_with_a_broken_line_says_so(folder: Folder) -> None:
    folder.write("rows.csv", 'prompt,completion\na,b\nc\nd,e,f\ng,h\n"never closed\n')

    assert folder.run().returncode == 0
    assert len(folder.rows()) == 2
    assert folder.build["dropped"] == {
        "not as many cells as the header": 2,
        "not readable as a table": 1,
        "duplicate": 0,
    }


def test_parquet_is_read_where_pyarrow_is(folder: Folder) -> None:
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist(pairs(3000)), folder.path / "inputs" / "rows.parquet")

    assert folder.run(isolated=["-E", "-s"]).returncode == 0
    assert len(folder.rows()) == 3000
    assert "needs pyarrow: run `uv run --with pyarrow" in refused(folder.run())


@pytest.mark.parametrize("content", [b"PAR1 no table PAR1", b"", b"PAR1" * 1000])
def test_parquet_that_is_none_is_refused_in_one_line(folder: Folder, content: bytes) -> None:
    folder.write("rows.parquet", content)

    assert "is not a readable Parquet file" in refused(folder.run(isolated=["-E", "-s"]))


def test_source_of_another_place_is_to_be_downloaded_by_hand(folder: Folder) -> None:
    commit = "a" * 40
    done = folder.run(f'data_sources: "hf:acme/sums@{commit}"', inputs=False)

    assert "download it and name its folder with --inputs" in refused(done)


# --- Where rows come from ---------------------------------------------------------------------------------------------


def provenance(folder: Folder) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder.path / "data" / "provenance.jsonl").read_text().splitlines()]


def test_every_row_knows_its_source_its_place_and_its_mapping(folder: Folder) -> None:
    commit = "b" * 40
    folder.source(["", *pairs(30), "not json", {"prompt": "late", "completion": "etal"}], "hf/acme/sums/a.jsonl")
    folder.source([{"question": f"q{i} is what?", "answer": f"a{i}"} for i in range(10)], "team.jsonl")
    recipe = f'data_sources: "hf:acme/sums@{commit}, team.jsonl"\ndata_validation_rows: 4\n'
    assert folder.run(recipe).returncode == 0
    build, lines = folder.build, provenance(folder)
    assert build["sources"][0]["source"] == f"hf:acme/sums@{commit}" and "source" not in build["sources"][1]
    built = [*folder.rows(), *folder.rows("validation")]
    assert [line["split"] for line in lines] == ["train"] * 37 + ["validation"] * 4
    for row, line in zip(built, lines, strict=True):
        path = folder.path / "inputs" / build["sources"][line["source"]]["path"]
        record = json.loads(path.read_text().splitlines()[line["source_row"] - 1])
        expressions = {use["role"]: use["expression"] for use in build["mappings"][line["mapping"]]["uses"]}
        assert row["prompt"][0]["content"] == record[expressions["prompt"]]
        assert row["completion"][0]["content"] == record[expressions["completion"]]
    assert {line["mapping"] for line in lines} == {0, 1}, "each of the two files has columns of its own"


def test_dropped_rows_are_counted_by_reason_and_the_first_of_each_is_named(folder: Folder) -> None:
    folder.source([*pairs(8), {"prompt": "x", "completion": None}, pairs(8)[0]])
    assert folder.run().returncode == 0
    assert folder.build["dropped"] == {"empty completion": 1, "duplicate": 1}
    assert folder.build["first_dropped"] == {
        "empty completion": [{"source": 0, "row": 9}],
        "duplicate": [{"source": 0, "row": 10}],
    }


def test_same_inputs_give_the_same_bytes(folder: Folder) -> None:
    folder.source(pairs(60) * 2)
    contents = []
    for _ in range(2):
        assert folder.run("data_validation_rows: 5\nseed: 3\n").returncode == 0
        contents.append({path.name: path.read_bytes() for path in (folder.path / "data").iterdir()})
    assert contents[0] == contents[1]
    assert contents[0].keys() == {"train.jsonl", "validation.jsonl", "provenance.jsonl", "build.json"}


@pytest.mark.slow
def test_large_parquet_file_is_streamed_in_bounded_memory(folder: Folder) -> None:
    import pyarrow
    from pyarrow import parquet

    text = "many words of a long answer " * 360
    schema = pyarrow.schema([("question", pyarrow.string()), ("answer", pyarrow.string())])
    with parquet.ParquetWriter(folder.path / "inputs" / "rows.parquet", schema) as writer:
        for begin in range(0, 24_000, 400):
            numbers = range(begin, begin + 400)
            columns = {"question": [f"what is {n}?" for n in numbers], "answer": [f"{n} {text}" for n in numbers]}
            writer.write_table(pyarrow.table(columns, schema=schema), row_group_size=400)
    measuring = (
        "import pathlib, runpy, sys\n"
        "sys.argv = ['prepare.py', '--config', 'recipe.yaml', '--inputs', 'inputs', '--output', 'data']\n"
        f"sys.path.insert(0, {str(folder.script.parent)!r})\n"
        f"runpy.run_path({str(folder.script)!r}, run_name='__main__')\n"
        "print(pathlib.Path('/proc/self/status').read_text())\n"
    )
    (folder.path / "recipe.yaml").write_text("data_max_rows: 2000\n")
    done = subprocess.run([sys.executable, "-c", measuring], cwd=folder.path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert folder.build["rows"] == 2000 and folder.build["dropped"]["over data_max_rows"] == 22_000
    peak = int(done.stdout.split("VmHWM:")[1].split()[0]) // 1024
    # The rows are 230 MiB of text, and took more than twice that while they were read at once.
    assert peak < 190, f"{peak} MiB"


def test_system_message_and_tools_come_along(folder: Folder) -> None:
    tools = json.dumps([{"type": "function", "function": {"name": "add"}}])
    folder.source(
        [{"system": "Be brief.", "query": f"what is {i}?", "answers": f"[{i}]", "tools": tools} for i in (1, 2)]
    )
    assert folder.run().returncode == 0
    first = min(folder.rows(), key=json.dumps)
    assert [turn["role"] for turn in first["prompt"]] == ["system", "user"] and first["tools"] == tools
    assert folder.run("data_system_column: none\ndata_tools_column: none\n").returncode == 0
    assert folder.rows()[0].keys() == {"prompt", "completion"} and len(folder.rows()[0]["prompt"]) == 1


def test_choices_scores_and_transcripts_become_rows(folder: Folder) -> None:
    folder.source([{"question": f"which is {i}?", "choices": ["no", f"it is {i}"], "answer": i % 2} for i in range(6)])
    assert folder.run().returncode == 0
    answers = {row["prompt"][0]["content"]: row["completion"][0]["content"] for row in folder.rows()}
    assert answers["which is 3?\n\nA. no\nB. it is 3"] == "it is 3" and len(answers) == 6
    whole = "\n\nHuman: why {}?\n\nAssistant: {}"
    folder.source([{"chosen": whole.format(i, f"so {i}"), "rejected": whole.format(i, "no")} for i in range(4)])
    assert folder.run("method: dpo\n").returncode == 0
    first = min(folder.rows(), key=json.dumps)
    assert first == {"prompt": asking("why 0?"), "chosen": said("so 0"), "rejected": said("no")}
    folder.source([{"prompt": f"p{i}", "response_0": f"a{i} b", "response_1": f"c{i} d", "score_0": i % 3, "score_1": 1}
                   for i in range(6)])  # fmt: skip
    assert folder.run("method: reward\n").returncode == 0
    assert folder.build["dropped"]["neither answer is better"] == 2
    better = {row["prompt"][0]["content"]: row["chosen"][0]["content"] for row in folder.rows()}
    assert better == {"p0": "c0 d", "p2": "a2 b", "p3": "c3 d", "p5": "a5 b"}


def test_two_readings_are_asked_about_in_one_line_with_the_lines_that_answer(folder: Folder) -> None:
    folder.source(
        [{"prompt": f"p{i}", "response_a": f"a{i} b", "response_b": f"c{i} d", "preference": i % 2} for i in range(6)]
    )
    asked_for = refused(folder.run("method: dpo\n"))
    assert "cannot tell which column to use" in asked_for
    line = "data_chosen_column: by(preference, 1=response_a, 0=response_b)"
    assert f"`{line}`" in asked_for
    assert folder.run(f"method: dpo\n{line}\n").returncode == 0
    assert {row["chosen"][0]["content"] for row in folder.rows()} == {"c0 d", "a1 b", "c2 d", "a3 b", "c4 d", "a5 b"}


# --- Rows of other methods ------------------------------------------------------------------------------------------

PNG, WAV = b"\x89PNG\r\n\x1a\n" + b"p" * 20, b"RIFF\x24\x00\x00\x00WAVEfmt " + b"w" * 20


def base64_of(content: bytes) -> str:
    return base64.b64encode(content).decode()


def said(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def asking(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


PREFERENCE = {"prompt": asking("2+2?"), "chosen": said("4"), "rejected": said("5")}


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "2+2?", "chosen": "4", "rejected": "5"},
        {"question": "2+2?", "preferred": "4", "dispreferred": "5", "score": 1},
        {"prompt": "2+2?", "chosen": asking("2+2?") + said("4"), "rejected": asking("2+2?") + said("5")},
        {"chosen": asking("2+2?") + said("4"), "rejected": asking("2+2?") + said("5")},
    ],
)
@pytest.mark.parametrize("method", ["dpo", "reward"])
def test_preferences_are_written_as_prompt_chosen_and_rejected(folder: Folder, method: str, row: dict) -> None:
    better, worse = ("preferred", "dispreferred") if "preferred" in row else ("chosen", "rejected")
    folder.source([row, row | {worse: row[better]}, row | {better: None}])
    assert folder.run(f"method: {method}\n").returncode == 0
    assert folder.rows() == [PREFERENCE]
    gone = folder.build["dropped"]
    assert gone["chosen equals rejected"] == 1 and gone.get("empty chosen", 0) + gone.get("empty prompt", 0) == 1


def test_dpo_without_rejected_answers_gets_pairs_to_sample_from(folder: Folder) -> None:
    folder.source(pairs(3))
    assert folder.run("method: dpo\n").returncode == 0
    assert folder.rows()[0].keys() == {"prompt", "completion"}
    assert "data_chosen_column and data_rejected_column" in refused(folder.run("method: reward\n"))


def test_texts_keep_their_order_for_pretraining(folder: Folder) -> None:
    folder.source([{"text": f"line {i}", "id": i} for i in range(20)] + [{"text": "  "}, {"text": None}])
    assert folder.run("method: pretrain\ndata_validation_rows: 2\n").returncode == 0
    texts = [row["text"] for row in folder.rows()]
    assert len(texts) == 18 and texts == sorted(texts, key=lambda text: int(text.split()[1]))
    assert len(folder.rows("validation")) == 2 and folder.build["dropped"]["empty text"] == 2


@pytest.mark.parametrize(
    ("row", "label"),
    [
        ({"sentence": "good", "label": 1}, "1"),
        ({"sentence": "good", "label": 0, "label_text": "positive"}, "positive"),
        ({"text": "good", "category": "praise"}, "praise"),
        ({"text": "good", "label": True}, "true"),
    ],
)
def test_classes_are_names_where_the_data_tells_them(folder: Folder, row: dict[str, Any], label: str) -> None:
    folder.source([row, {key: value if value == "good" else None for key, value in row.items()}])
    assert folder.run("method: classify\n").returncode == 0
    assert folder.rows() == [{"text": "good", "label": label}]
    assert folder.build["labels"] == {label: 1} and folder.build["dropped"]["empty label"] == 1


def test_classes_of_a_parquet_file_get_the_names_in_its_metadata(folder: Folder) -> None:
    import pyarrow
    from pyarrow import parquet

    features = {"image": {"_type": "Image"}, "label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}
    rows = [{"image": {"bytes": PNG + bytes([i]), "path": None}, "label": i % 3 - 1} for i in range(6)]
    table = pyarrow.Table.from_pylist(rows)
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    parquet.write_table(table, folder.path / "inputs" / "rows.parquet")

    assert folder.run("method: vision\n", isolated=["-E", "-s"]).returncode == 0
    found = {row["image"]: row["label"] for row in folder.rows()}
    assert found == {base64_of(PNG + bytes([i])): ["cat", "dog"][i % 3 - 1] for i in (1, 2, 4, 5)}
    assert folder.build["dropped"]["empty label"] == 2, "-1 is how a test set hides its classes"


def test_images_are_read_from_files_beside_the_rows_and_from_nowhere_else(folder: Folder) -> None:
    folder.write("cat.png", PNG)
    (folder.path / "secret.png").write_bytes(PNG + b"secret")
    names = ["cat.png", "../secret.png", "gone.png", base64_of(PNG + b"2"), base64_of(b"GIF89a" + b"g" * 20)]
    folder.source([{"file_name": name, "label": "cat"} for name in names], "metadata.jsonl")
    assert folder.run("method: vision\n").returncode == 0
    assert {row["image"] for row in folder.rows()} == {base64_of(PNG), base64_of(PNG + b"2")}
    assert folder.build["dropped"]["no PNG or JPEG in image"] == 3


def test_recordings_come_out_with_what_is_said_in_them(folder: Folder) -> None:
    rows = [
        {"audio": base64_of(WAV), "transcription": "hello"},
        {"audio": base64_of(b"fLaC" + WAV), "transcription": "x"},
    ]
    folder.source(rows)
    assert folder.run("method: speech\n").returncode == 0
    assert folder.rows() == [{"audio": base64_of(WAV), "text": "hello"}]
    assert folder.build["dropped"]["no WAV in audio"] == 1


def test_unknown_method_is_refused(folder: Folder) -> None:
    folder.source(pairs(1))
    assert "method: ppo is not known; write one of sft" in refused(folder.run("method: ppo\n"))


def test_prepare_knows_every_method_and_its_columns() -> None:
    assert {name: method.columns for name, method in METHODS.items()} == ROLES
