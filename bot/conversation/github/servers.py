"""Where a GitHub server's doors are: REST, GraphQL and web pages, from whatever a person writes as its address.

github.com keeps them on hosts of their own, GitHub Enterprise Server below one, Enterprise Cloud with data residency
on `api.NAME.ghe.com`: https://docs.github.com/en/enterprise-server@latest/rest/quickstart,
https://docs.github.com/en/enterprise-cloud@latest/admin/data-residency/about-github-enterprise-cloud-with-data-residency
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

import httpx

from bot.errors import SettingsError

EXAMPLES = "Write https://api.github.com, or https://HOST/api/v3 for a GitHub Enterprise Server"


@dataclass(frozen=True, slots=True)
class Server:
    """The three roots, none with a slash at its end."""

    rest: str
    graphql: str
    html: str

    @property
    def enterprise(self) -> bool:
        """Whether this is a GitHub Enterprise Server, which may lack newer endpoints."""
        return self.rest.endswith("/api/v3")

    def owns(self, url: httpx.URL) -> bool:
        """Whether `url` lies on the server that REST is asked at: its credentials go nowhere else."""
        ours = httpx.URL(self.rest)
        return (url.scheme, url.host, url.port) == (ours.scheme, ours.host, ours.port)


def server_at(address: str) -> Server:
    """The server that a person means by `https://HOST`, `https://HOST/api/v3` or `https://api.github.com`.

    Raises: SettingsError for what is no address, and for plain http to another machine: tokens would travel readable.
    """
    try:
        url = httpx.URL(address.strip())
    except httpx.InvalidURL as error:
        raise SettingsError(f"POSTDOC_GITHUB_URL is no address. {EXAMPLES}.") from error
    if url.scheme not in ("http", "https") or not re.fullmatch(r"[\w.:-]+", url.host, re.ASCII):
        raise SettingsError(f"POSTDOC_GITHUB_URL needs `https://` and a host. {EXAMPLES}.")
    if url.userinfo or url.query or url.fragment:
        raise SettingsError(f"POSTDOC_GITHUB_URL must hold no password, query or fragment. {EXAMPLES}.")
    if url.scheme == "http" and not _is_loopback(url.host):
        raise SettingsError("POSTDOC_GITHUB_URL: over http the App's tokens could be read on the way. Write https://.")
    path = url.path.rstrip("/")
    if path not in ("", "/api", "/api/v3"):
        raise SettingsError(f"POSTDOC_GITHUB_URL: {path} is not where GitHub has its API. {EXAMPLES}.")
    authority = url.netloc.decode("ascii")
    if url.host in ("github.com", "www.github.com", "api.github.com"):
        return Server("https://api.github.com", "https://api.github.com/graphql", "https://github.com")
    if url.host.endswith(".ghe.com"):
        name = authority.removeprefix("api.")
        return Server(f"https://api.{name}", f"https://api.{name}/graphql", f"https://{name}")
    root = f"{url.scheme}://{authority}"
    return Server(f"{root}/api/v3", f"{root}/api/graphql", root)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
