"""Issues: the list, the form a repository asks people to fill in, and the conversation."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from bot.practice import issues as forge_issues
from bot.practice.pages import issue_form
from bot.practice.pages.api import ApiError
from bot.practice.pages.conversation import Reader, issue_items
from bot.practice.pages.issue_form import Form, FormError
from bot.practice.pages.markdown import Setting, render
from bot.practice.pages.repository import RAW, frame
from bot.practice.pages.site import Redirect, View, Visit


async def listed(visit: Visit) -> View:
    """Issues, or pull requests at their own address, open or closed."""
    pulls = visit.request.url.path.endswith("/pulls")
    state = "closed" if visit.query("state") == "closed" else "open"
    shared, found = await asyncio.gather(
        frame(visit, "pulls" if pulls else "issues"),
        visit.api.all(f"/repos/{visit.repository}/issues", state=state),
    )
    issues = [issue for issue in found if bool(issue.get("pull_request")) == pulls]
    return View("issues.html", {**shared, "issues": issues, "state": state, "pulls": pulls})


async def choose(visit: Visit) -> View:
    """The repository's issue forms to choose from."""
    shared = await frame(visit, "issues")
    forms, problems = await _forms(visit)
    return View("issue_choose.html", {**shared, "forms": forms, "problems": problems})


async def new(visit: Visit) -> View | Redirect:
    """A form named by `?template=`, or an empty issue; fields may be filled in by the address, as on GitHub."""
    shared = await frame(visit, "issues")
    name = visit.query("template")
    if not name:
        forms, problems = await _forms(visit)
        if (forms or problems) and not visit.query("blank"):
            return Redirect(f"/{visit.repository}/issues/new/choose")
        return View(
            "issue_new.html", {**shared, "form": None, **_filled(visit.query("title"), {}), "text": visit.query("body")}
        )
    form = await _form(visit, name)
    answers = {field.id: _first_answers(visit, field) for field in form.questions}
    return _form_page(shared, visit, form, visit.query("title") or form.title, answers, {})


def _first_answers(visit: Visit, field: issue_form.Field) -> list[str]:
    given = [value for value in visit.request.query_params.getlist(field.id) if value]
    if given:
        return given
    if field.type == "dropdown" and field.default is not None:
        return [field.choices[field.default].label]
    return [field.value] if field.value else []


def _filled(title: str, answers: dict[str, list[str]], problems: dict[str, str] | None = None) -> dict[str, Any]:
    return {"title": title, "answers": answers, "problems": problems or {}, "text": ""}


def _form_page(
    shared: dict[str, Any],
    visit: Visit,
    form: Form,
    title: str,
    answers: dict[str, list[str]],
    problems: dict[str, str],
) -> View:
    setting = Setting(visit.repository, hard_breaks=False)
    words = {field.id: render(field.value, setting) for field in form.fields if field.type == "markdown"}
    hints = {field.id: render(field.description, setting) for field in form.questions if field.description}
    values = {"form": form, "words": words, "hints": hints, **_filled(title, answers, problems)}
    return View("issue_new.html", {**shared, **values}, 422 if problems else 200)


async def create(visit: Visit) -> View | Redirect:
    """Opens the issue that was written, or shows the form again with what is missing."""
    visit.person()
    title = visit.form["title"].strip()
    if name := visit.form["template"]:
        form = await _form(visit, name)
        answers = {field.id: [v for v in visit.form.every(f"answer-{field.id}") if v] for field in form.questions}
        problems = issue_form.missing(form, answers)
        if not title or title == form.title.strip():
            problems["title"] = "Give the issue a title of its own."
        if problems:
            return _form_page(await frame(visit, "issues"), visit, form, visit.form["title"], answers, problems)
        number = await _open_labelled(visit, title, issue_form.body(form, answers), form.labels)
    else:
        payload = {"title": title, "body": visit.form.markdown("body")}
        number = (await visit.api.send("POST", f"/repos/{visit.repository}/issues", payload)).json()["number"]
    return Redirect(f"/{visit.repository}/issues/{number}")


async def _open_labelled(visit: Visit, title: str, body: str, labels: Sequence[str]) -> int:
    """Opens an issue with a form's labels, whoever filled it in; the API drops labels of people without permission.

    A label that the repository does not have is left out, as on GitHub:
    https://docs.github.com/en/communities/using-templates-to-encourage-useful-issues-and-pull-requests/syntax-for-issue-forms
    """
    known = {label["name"].lower(): label["name"] for label in await visit.api.all(f"/repos/{visit.repository}/labels")}
    given = [known[label.lower()] for label in labels if label.lower() in known]
    forge = visit.site.forge
    with forge.lock:
        actor, repository = forge.actor(visit.person()), forge.repository(visit.repository)
        return forge_issues.open_issue(forge, actor, repository, title, body, given).number


async def _form(visit: Visit, name: str) -> Form:
    if "/" in name or not name.endswith((".yml", ".yaml")):
        raise ApiError(404, "Not Found")
    path = quote(f"{issue_form.TEMPLATE_FOLDER}/{name}")
    try:
        return issue_form.parse(
            name, (await visit.api.text(f"/repos/{visit.repository}/contents/{path}", RAW)).decode()
        )
    except (FormError, UnicodeDecodeError) as error:
        raise ApiError(422, str(error)) from None


async def _forms(visit: Visit) -> tuple[list[Form], list[str]]:
    entries = await visit.api.find(f"/repos/{visit.repository}/contents/{issue_form.TEMPLATE_FOLDER}") or []
    forms, problems = [], []
    for entry in entries:
        if entry["name"] in ("config.yml", "config.yaml") or not entry["name"].endswith((".yml", ".yaml")):
            continue
        try:
            forms.append(await _form(visit, entry["name"]))
        except ApiError as error:
            problems.append(error.message)
    return forms, problems


async def show(visit: Visit) -> View | Redirect:
    """The conversation of an issue; a pull request's is at its own address."""
    issue = await visit.api.get(f"/repos/{visit.repository}/issues/{visit.number}")
    if issue.get("pull_request"):
        return Redirect(f"/{visit.repository}/pull/{visit.number}")
    shared = await frame(visit, "issues")
    reader = Reader(visit.repository, visit.login, shared["may_write"])
    items, labels = await asyncio.gather(
        issue_items(visit.api, reader, visit.number), visit.api.find(f"/repos/{visit.repository}/labels", per_page=100)
    )
    values = {
        "issue": issue, "pull": None, "description": reader.comment("issue", issue), "items": items,
        "labels": labels or [], "section": "conversation", "threads": [], "checks": [], "merge": None,
    }  # fmt: skip
    return View("conversation.html", {**shared, **values})
