"""`postdoc doctor --hub`: whether jobs would run on Hugging Face Jobs, what they would cost, and whether the token that
they are given opens anything that it should not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from bot.config import Settings
from bot.errors import PostdocError, UserError
from runners.doctor import Finding
from runners.hf_jobs.backend import HubJobs
from runners.hf_jobs.hub import Hub

_JOB_PERMISSION = "job.write"
_REPOSITORY_PERMISSION = "repo.write"


def hub_examination(settings: Settings, jobs: HubJobs) -> list[Finding]:
    """Two questions after who a token is, which the Hub limits strictly, and three others."""
    assert settings.hub_token is not None
    findings: list[Finding] = []
    findings += _asked("server's token", "POSTDOC_HUB_TOKEN", lambda: _server_token(
        jobs.hub, jobs.hub.account(settings.hub_token.get_secret_value())))  # type: ignore[union-attr]  # fmt: skip
    findings += _asked("jobs' token", "POSTDOC_HF_JOBS_TOKEN", lambda: _jobs_token(
        jobs.hub.repository, jobs.hub.account(jobs.machine.runs_token)))  # fmt: skip
    findings += _asked("runs repository", "POSTDOC_HF_JOBS_REPOSITORY", lambda: _repository(jobs.hub))
    findings += _asked("machine", "POSTDOC_HF_JOBS_FLAVOR", lambda: _machine(jobs))
    findings.append(_image(jobs.machine.image))
    return findings


def _asked(name: str, setting: str, ask: Callable[[], Iterable[Finding]]) -> list[Finding]:
    try:
        return list(ask())
    except UserError as error:
        return [Finding(name, False, f"the Hub refuses it: {error}", f"look at {setting}")]
    except PostdocError as error:
        return [Finding(name, False, str(error), "try again later; https://status.huggingface.co says more")]


def _token(account: Mapping[str, Any]) -> Mapping[str, Any]:
    return dict((account.get("auth") or {}).get("accessToken") or {})


def _scopes(token: Mapping[str, Any]) -> list[tuple[str, str, frozenset[str]]]:
    """Kind, name and permissions of everything that a fine-grained token opens."""
    fine = token.get("fineGrained") or {}
    found = [
        (str(each["entity"]["type"]), str(each["entity"].get("name", "")), frozenset(each.get("permissions", ())))
        for each in fine.get("scoped", ())
    ]
    if fine.get("global"):
        found.append(("everything", "", frozenset(fine["global"])))
    return [each for each in found if each[2]]


def _server_token(hub: Hub, account: Mapping[str, Any]) -> Iterable[Finding]:
    token, name = _token(account), str(account.get("name"))
    role = str(token.get("role", "unknown"))
    organisations = {str(each["name"]): each for each in account.get("orgs", ())}
    if hub.namespace not in {name, *organisations}:
        advice = "set POSTDOC_HF_JOBS_NAMESPACE to that account or to one of its organisations"
        yield Finding("namespace", False, f"{name} is not in {hub.namespace}", advice)
        return
    can = role == "write" or any(
        _JOB_PERMISSION in permissions and (kind == "everything" or scope == hub.namespace)
        for kind, scope, permissions in _scopes(token)
    )
    if not can:
        advice = f"give it the permission to start and manage jobs ({_JOB_PERMISSION}) in {hub.namespace}"
        yield Finding("server's token", False, f"{name}'s, role {role}: it may not start jobs", advice)
    else:
        yield Finding("server's token", True, f"{name}'s, role {role}: it may start jobs in {hub.namespace}")
    payer = account if hub.namespace == name else organisations[hub.namespace]
    if payer.get("canPay") is False:
        advice = "optional: jobs need a payment method or credit, https://huggingface.co/settings/billing"
        yield Finding("payment", False, f"{hub.namespace} has no payment method; prepaid credit is not shown", advice)


def _jobs_token(repository: str, account: Mapping[str, Any]) -> Iterable[Finding]:
    token = _token(account)
    role, scopes = str(token.get("role", "unknown")), _scopes(token)
    advice = (
        f"make a fine-grained token with write access to the contents of {repository} and nothing else, at "
        "https://huggingface.co/settings/tokens: it is in the container of every job"
    )
    if role != "fineGrained":
        yield Finding("jobs' token", False, f"role {role}: it opens all that {account.get('name')} may open", advice)
        return
    if not any(scope == repository and _REPOSITORY_PERMISSION in permissions for _, scope, permissions in scopes):
        yield Finding("jobs' token", False, f"it does not write {repository}", advice)
        return
    beyond = [f"{kind} {scope}".strip() for kind, scope, _ in scopes if scope != repository]
    if beyond:
        yield Finding("jobs' token", False, f"it opens more than {repository}: {', '.join(beyond)}", advice)
        return
    yield Finding("jobs' token", True, f"fine-grained: it writes {repository} and opens nothing else")


def _repository(hub: Hub) -> Iterable[Finding]:
    private = hub.is_private()
    if private is None:
        advice = "optional: it is made, private, when the first job starts"
        yield Finding("runs repository", False, f"{hub.repository} is not there yet", advice)
    elif private:
        yield Finding("runs repository", True, f"{hub.repository}, private")
    else:
        advice = "make it private: data of jobs and items of benchmarks go there"
        yield Finding("runs repository", False, f"everybody can see {hub.repository}", advice)


def _machine(jobs: HubJobs) -> Iterable[Finding]:
    offered = {flavor.name: flavor for flavor in jobs.flavors()}
    found = offered.get(jobs.machine.flavor)
    if found is None:
        listed = ", ".join(f"{name} ${flavor.usd_per_hour}/h" for name, flavor in offered.items())
        yield Finding("machine", False, f"there is no {jobs.machine.flavor}", f"write one of {listed}")
        return
    gpus = f"{found.gpus} × {found.gpu_model} with {found.gpu_memory_gib:g} GB" if found.gpus else "no GPU"
    price = f"${found.usd_per_hour:g} an hour" if found.usd_per_hour is not None else "price unknown"
    yield Finding("machine", True, f"{found.name}: {gpus}, {found.memory_gib:g} GB memory, {price}")


def _image(image: str) -> Finding:
    if "@sha256:" in image:
        return Finding("image", True, image)
    return Finding(
        "image", False, image, "optional: add its digest, `name@sha256:...`; a tag may mean another tomorrow"
    )


def hub_json(findings: Sequence[Finding]) -> dict[str, Any]:
    listed = [{"name": f.name, "ok": f.ok, "detail": f.detail, "advice": f.advice} for f in findings]
    return {"ok": all(f.ok or f.advice.startswith("optional") for f in findings), "findings": listed}
