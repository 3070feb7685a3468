"""A browser without a screen: reads pages over HTTP, fills in the forms on them, and follows where they lead."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser
from urllib.parse import urljoin, urlsplit

import httpx


@dataclass
class Form:
    action: str
    method: str
    id: str
    fields: list[tuple[str, str]] = field(default_factory=list)
    buttons: list[tuple[str, str, str]] = field(default_factory=list)
    # name, value, text


class _Reader(HTMLParser):
    """Collects the forms of a page with what a browser would send, the visible text, and the script addresses."""

    def __init__(self) -> None:
        super().__init__()
        self.forms: list[Form] = []
        self.outside: list[tuple[str, str, str]] = []
        self.text: list[str] = []
        self.inside: Form | None = None
        self.area: tuple[str, list[str]] | None = None
        self.select = ""
        self.button: list[str] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        a = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.inside = Form(a.get("action", ""), a.get("method", "get"), a.get("id", ""))
            self.forms.append(self.inside)
        elif tag == "button":
            if a.get("form"):
                self.outside.append((a["form"], a.get("name", ""), a.get("value", "")))
            elif self.inside and a.get("type") == "submit" and "disabled" not in a:
                self.button = [a.get("name", ""), a.get("value", ""), ""]
        elif self.inside is not None:
            self._field(tag, a)

    def _field(self, tag: str, a: dict[str, str]) -> None:
        assert self.inside is not None
        if tag == "input" and a.get("name"):
            if a.get("type") not in ("checkbox", "radio") or "checked" in a:
                self.inside.fields.append((a["name"], a.get("value", "")))
        elif tag == "textarea":
            self.area = (a.get("name", ""), [])
        elif tag == "select":
            self.select = a.get("name", "")
        elif tag == "option" and self.select and "selected" in a:
            self.inside.fields.append((self.select, a.get("value", "")))

    def handle_data(self, data: str) -> None:
        self.text.append(data)
        if self.area is not None:
            self.area[1].append(data)
        if self.button is not None:
            self.button[2] += data

    def handle_endtag(self, tag: str) -> None:
        if tag == "textarea" and self.area is not None and self.inside is not None:
            self.inside.fields.append((self.area[0], "".join(self.area[1]).removeprefix("\n")))
            self.area = None
        elif tag == "button" and self.button is not None and self.inside is not None:
            self.inside.buttons.append((self.button[0], self.button[1], self.button[2].strip()))
            self.button = None
        elif tag == "select":
            self.select = ""
        elif tag == "form":
            self.inside = None


@dataclass
class Page:
    url: str
    status: int
    html: str
    headers: httpx.Headers

    def __post_init__(self) -> None:
        reader = _Reader()
        reader.feed(self.html)
        self.forms, self.outside = reader.forms, reader.outside
        self.text = " ".join(" ".join(reader.text).split())

    def form(self, action_end: str) -> Form:
        found = [form for form in self.forms if form.action.endswith(action_end)]
        assert len(found) == 1, f"{len(found)} forms end in {action_end}: {[form.action for form in self.forms]}"
        return found[0]


class Browser:
    """One person's browser."""

    def __init__(self, base_url: str) -> None:
        self.client = httpx.Client(base_url=base_url, follow_redirects=False, trust_env=False, timeout=30)

    def get(self, path: str, **headers: str) -> Page:
        reply = self.client.get(path, headers=headers)
        while reply.is_redirect:
            reply = self.client.get(urljoin(str(reply.url), reply.headers["location"]))
        return Page(str(reply.url), reply.status_code, reply.text, reply.headers)

    def sign_in(self, login: str) -> Browser:
        page = self.get("/")
        self.send(page, page.forms[0], button=("login", login))
        return self

    def send(
        self,
        page: Page,
        form: Form,
        button: tuple[str, str] | None = None,
        answers: dict[str, str] | None = None,
        **given: str | list[str],
    ) -> Page:
        """Submits `form` with some fields changed, as a browser does, and follows where it leads."""
        changed: dict[str, str | list[str]] = {**given, **(answers or {})}
        sent = [(name, value) for name, value in form.fields if name not in changed]
        for name, value in changed.items():
            sent += [(name, each) for each in ([value] if isinstance(value, str) else value)]
        sent += [button] if button else []
        data: dict[str, list[str]] = {}
        for name, value in sent:
            data.setdefault(name, []).append(value.replace("\n", "\r\n"))  # as textareas are sent
        target = urlsplit(urljoin(page.url, form.action or page.url))
        origin = f"{target.scheme}://{target.netloc}"
        headers = {"Origin": origin, "Sec-Fetch-Site": "same-origin", "Referer": page.url}
        reply = self.client.post(target.path, data=data, headers=headers)
        if reply.is_redirect:
            return self.get(reply.headers["location"])
        return Page(str(reply.url), reply.status_code, reply.text, reply.headers)

    def close(self) -> None:
        self.client.close()
