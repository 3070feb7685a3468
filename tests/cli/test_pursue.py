"""`postdoc pursue`: what goes to the forge and what comes back, over a real git repository."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from bot.cli.practice import _goal_in
from bot.errors import UserError
from bot.practice.pursue import CALLER, fetched_branch, git, repository_here
from bot.practice.world import Place, PracticeWorld


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "my project"
    folder.mkdir()
    run = ["git", "-c", "user.name=A", "-c", "user.email=a@example.org"]
    subprocess.run([*run, "init", "--quiet", "-b", "trunk"], cwd=folder, check=True)
    (folder / "README.md").write_text("# mine\n")
    subprocess.run([*run, "add", "-A"], cwd=folder, check=True)
    subprocess.run([*run, "commit", "--quiet", "-m", "start"], cwd=folder, check=True)
    return folder


def test_head_becomes_the_forges_default_branch(tmp_path: Path, repository: Path) -> None:
    with PracticeWorld(tmp_path / "world", Place("local", "mine", (CALLER,), source=repository)) as world:
        assert git(world.repository, "rev-parse", "main") == git(repository, "rev-parse", "HEAD")
        assert world.forge.repository("local/mine").git.branch("main") == git(repository, "rev-parse", "HEAD")


def test_branch_comes_back_under_a_name_that_is_free(tmp_path: Path, repository: Path) -> None:
    source = tmp_path / "forge.git"
    git(tmp_path, "clone", "--quiet", "--bare", str(repository), str(source))
    git(source, "branch", "postdoc/1-last", "trunk")
    assert fetched_branch(repository, source, "postdoc/1-last") == "postdoc/1-last"
    assert fetched_branch(repository, source, "postdoc/1-last") == "postdoc/1-last-2"
    assert git(repository, "rev-parse", "postdoc/1-last-2") == git(repository, "rev-parse", "trunk")


def test_repository_is_found_from_a_folder_inside_it(repository: Path) -> None:
    inside = repository / "data"
    inside.mkdir()
    assert repository_here(inside) == repository


def test_repository_without_a_commit_is_refused(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet", ".")
    with pytest.raises(UserError, match="git init"):
        repository_here(tmp_path)


def test_goal_in_words_is_the_issue_as_it_stands() -> None:
    title, answers, words = _goal_in("raise postdoc/tiny-qwen3 on practice/last to 90 %\nbudget: 2 runs")
    assert (title, answers) == ("raise postdoc/tiny-qwen3 on practice/last to 90 %", None)
    assert words.endswith("budget: 2 runs")


def test_goal_in_a_file_becomes_the_forms_answers(tmp_path: Path) -> None:
    goal = tmp_path / "goal.yaml"
    goal.write_text(
        "base_model: postdoc/tiny-qwen3\nbenchmark: practice/last\ntarget: 0.9\nbudget: {runs: 2}\n"
        "recipe: |\n  learning_rate: 1.0e-03\n  max_steps: 50\n"
    )
    title, answers, _ = _goal_in(str(goal))
    assert title
    assert answers is not None
    assert (answers["target"], answers["runs"]) == ("90 %", "2")
    assert "learning_rate: 1.0e-03\nmax_steps: 50" in answers["recipe"]
