"""`postdoc pursue`: one goal, headless, on a practice forge over a git repository of this machine.

The repository's HEAD becomes the forge's default branch; the bot works there exactly as it would on GitHub, and what
it proposed comes back as a branch. The person who called has agreed to the goal's budget by calling, so a question for
consent is answered in their name; nothing beyond the goal's budget is ever spent.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from bot.domain.experiment import Experiment
from bot.errors import UserError
from bot.practice.demo import Follower, Outcome, best_model, built_base, show_outcome
from bot.practice.goals import issue_of
from bot.practice.narration import Activity
from bot.practice.terminal import Screen
from bot.practice.tiny_base import NAME, cached_path, is_built
from bot.practice.world import Person, Place, PracticeWorld

OWNER = "local"
CALLER = Person("you", "You", "admin")


def git(folder: Path, *words: str) -> str:
    """What git prints. Raises: UserError with git's last line when it fails."""
    try:
        done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=False)
    except OSError as error:
        raise UserError(f"git cannot be run: {error.strerror}. Install it: `apt-get install git`.") from error
    if done.returncode != 0:
        said = (done.stderr.strip().splitlines() or ["it failed without a word"])[-1]
        raise UserError(f"git {words[0]}: {said}")
    return done.stdout.strip()


def repository_here(folder: Path) -> Path:
    """The top of the git repository around `folder`. Raises: UserError when there is none, or no commit in it."""
    try:
        top = Path(git(folder, "rev-parse", "--show-toplevel"))
        git(top, "rev-parse", "--verify", "--quiet", "HEAD")
    except UserError as error:
        raise UserError(
            f"{folder} is not in a git repository with a commit, and a goal is pursued over one. "
            "Make one with `git init && git add -A && git commit -m start`, or run this in a repository."
        ) from error
    return top


def run_pursuit(
    screen: Screen,
    folder: Path,
    repository: Path,
    *,
    title: str,
    answers: Mapping[str, str] | None,
    words: str = "",
    end_jobs: Callable[[Path], None],
    settings: Mapping[str, str] | None = None,
) -> tuple[Outcome, str | None]:
    """Pursue the goal and return how it ended and the branch that it came back on.

    `answers` are the goal form's fields; without them the goal is the person's own `words`. `settings` are the bot's
    further `POSTDOC_*` variables.
    """
    body, labels = issue_of(answers) if answers is not None else (words, ("postdoc",))
    name = _forge_name(repository)
    place = Place(OWNER, name, (CALLER,), source=repository, description=f"A copy of {repository}")
    practice = PracticeWorld(folder, place, models={NAME: cached_path()}, end_jobs=end_jobs, settings=settings)
    with practice as world, screen:
        screen.heading(f"Postdoc pursues a goal over {repository}")
        screen.addresses([("issue", world.page("issues/1")), ("pull requests", world.page("pulls"))])
        screen.blank()
        began = time.monotonic()
        issue = world.open_issue(CALLER.login, title, body, labels)
        built = built_base(screen) if NAME in body and not is_built(cached_path()) else 0.0
        screen.show(Activity("starting the bot"))
        world.start_bot()

        def agree(x: Experiment) -> None:
            assert x.pull_request is not None
            if x.consent is not None and x.run is not None and x.run.remedy is not None and not x.changed:
                # What was agreed to by calling is the budget. A change of scope is nobody's to grant who is not asked,
                # so the goal ends with the suggestion in its review.
                world.comment(CALLER.login, x.pull_request, "/postdoc stop")
                return
            world.comment(CALLER.login, x.pull_request, f"/postdoc run {x.head_sha}")

        x = Follower(world, screen, issue, agree).until_over()
        seconds = time.monotonic() - began - built
        outcome = Outcome(x, seconds, world.repository, best_model(world.data_folder, x))
        branch = fetched_branch(repository, world.repository, x.branch) if x.pull_request is not None else None
        show_outcome(screen, outcome, world)
        if branch is not None:
            screen.addresses([("branch", branch), ("look at it", f"git log --stat {branch}")])
    return outcome, branch


def _forge_name(repository: Path) -> str:
    """A repository name that the forge takes, made from the folder's."""
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in repository.name).strip(".-")
    return kept[:100] or "repository"


def fetched_branch(repository: Path, source: Path, branch: str) -> str:
    """Fetch the bot's branch into `repository`, under a new name where an earlier pursuit has left that one."""
    taken = set(git(repository, "for-each-ref", "--format=%(refname:short)", "refs/heads").splitlines())
    name, n = branch, 2
    while name in taken:
        name, n = f"{branch}-{n}", n + 1
    git(repository, "fetch", "--quiet", "--no-tags", str(source), f"refs/heads/{branch}:refs/heads/{name}")
    return name


__all__ = ["fetched_branch", "repository_here", "run_pursuit"]
