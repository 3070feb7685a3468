"""One file at an https address that the policy allows: fetched whole or not at all, and named by its digest.

What a redirect, a name server or a slow server could do with an address is met here: every address that is asked, the
redirected ones too, must be allowed by the policy and lie on the public network; the connection goes to the very
address that was looked at; size and time have an end. A host on a private network is for the server's owner to allow
(POSTDOC_PRIVATE_DATA_HOSTS), since whoever writes a repository's policy need not own the machine that obeys it.
"""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import os
import socket
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import urljoin

import httpx

from bot.domain.data_source import AddressSource, parse_source
from bot.errors import TransientError, UserError

MOST_BYTES = 128 * 1024 * 1024
TOTAL_SECONDS = 300.0
MOST_REDIRECTS = 3
_TIMEOUT = httpx.Timeout(20.0, connect=10.0)
_LATER = frozenset({408, 425, 429, 500, 502, 503, 504})

Allowed = Callable[[AddressSource], str | None]
"""Why this address may not be asked, as the end of a sentence; None when it may."""


async def fetch_address(
    source: AddressSource, folder: Path, *, allowed: Allowed, private_hosts: Sequence[str] = ()
) -> AddressSource:
    """The source pinned to what lies there now, its bytes put into `folder` under their digest.

    Raises: UserError, beginning with the address, for what its author has to mend; TransientError.
    """
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    partial = folder / f".{uuid.uuid4().hex}"
    try:
        async with asyncio.timeout(TOTAL_SECONDS):
            digest = await _download(source, partial, allowed, private_hosts)
        if source.sha256 and digest != source.sha256:
            raise UserError(
                f"The data at `{source.url}` has changed since it was agreed (sha256 {source.sha256[:12]} then, "
                f"{digest[:12]} now): put the old file back, or edit the issue so that it is read again."
            )
        partial.replace(folder / digest)
    except TimeoutError:
        raise UserError(
            f"`{source.url}` was not delivered within {TOTAL_SECONDS:.0f} seconds: put the file on a faster server, or "
            "into this repository."
        ) from None
    except (httpx.HTTPError, OSError) as error:
        raise TransientError(f"{source.url} could not be fetched: {type(error).__name__}") from error
    finally:
        partial.unlink(missing_ok=True)
    return AddressSource(source.url, digest)


async def _download(source: AddressSource, target: Path, allowed: Allowed, private_hosts: Sequence[str]) -> str:
    """Write the file; returns its SHA-256."""
    asked = source
    # The machine's certificates (SSL_CERT_FILE too), none of its proxies.
    async with httpx.AsyncClient(verify=httpx.create_ssl_context(), trust_env=False, timeout=_TIMEOUT) as client:
        for _ in range(MOST_REDIRECTS + 1):
            if (why := allowed(asked)) is not None:
                raise UserError(f"`{source.url}` leads to `{asked.url}`, which {why}.")
            request = await _request(client, asked, private_hosts)
            response = await client.send(request, stream=True)
            try:
                if not response.has_redirect_location:
                    return await _written(source, response, target)
                asked = _redirected(source, asked, response.headers["location"])
            finally:
                await response.aclose()
    raise UserError(f"`{source.url}` is redirected more than {MOST_REDIRECTS} times: write the address it ends at.")


def _redirected(source: AddressSource, asked: AddressSource, location: str) -> AddressSource:
    target = urljoin(asked.url, location)
    try:
        found = parse_source(target)
    except UserError:
        found = None
    if not isinstance(found, AddressSource):
        raise UserError(f"`{source.url}` is redirected to `{target[:120]}`: write the plain https address of the file.")
    return found


async def _request(client: httpx.AsyncClient, asked: AddressSource, private_hosts: Sequence[str]) -> httpx.Request:
    """The request, to the very network address that was checked: a name may stand for another one a moment later."""
    host, _, port = asked.host.partition(":")
    number = int(port or 443)
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, number, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError):
        raise UserError(f"`{asked.url}`: there is no host `{host}`. Correct the address.") from None
    addresses = [str(entry[4][0]) for entry in found]
    if asked.host not in private_hosts and not all(is_public(address) for address in addresses):
        raise UserError(
            f"`{asked.url}` lies on a private network, which data is not fetched from: put the file where the public "
            f"network reaches it, or have the server's owner add `{asked.host}` to POSTDOC_PRIVATE_DATA_HOSTS."
        )
    if not addresses:
        raise TransientError(f"{host} has no address")
    literal = f"[{addresses[0]}]" if ":" in addresses[0] else addresses[0]
    path = "/" + asked.url.split("/", 3)[3]
    # `identity`, because a small compressed answer may unfold to any size.
    headers = {"Host": asked.host, "Accept-Encoding": "identity", "User-Agent": "postdoc"}
    return client.build_request(
        "GET", f"https://{literal}:{number}{path}", headers=headers, extensions={"sni_hostname": host}
    )


def is_public(address: str) -> bool:
    """True for an address of the public network, also when it is written inside of an IPv6 address."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour or (found.teredo[1] if found.teredo else None)
        if inner is None and found in ipaddress.ip_network("64:ff9b::/96"):
            inner = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
    return found.is_global and not found.is_multicast


async def _written(source: AddressSource, response: httpx.Response, target: Path) -> str:
    if response.status_code in _LATER:
        wait = response.headers.get("retry-after", "")
        seconds = float(wait) if wait.isdigit() else None
        raise TransientError(f"{source.host} answered {response.status_code}", retry_after_seconds=seconds)
    if response.status_code != 200:
        raise UserError(
            f"`{source.url}` answered {response.status_code}: write the address of a file that anybody may fetch, or "
            "put the file into this repository."
        )
    if response.headers.get("content-encoding", "identity") != "identity":
        raise UserError(f"`{source.url}` is sent compressed although that was not asked for: put the plain file there.")
    said = response.headers.get("content-length", "")
    if said.isdigit() and int(said) > MOST_BYTES:
        raise UserError(_too_large(source))
    digest, size = hashlib.sha256(), 0
    with target.open("wb") as file:
        async for block in response.aiter_raw():
            size += len(block)
            if size > MOST_BYTES:
                raise UserError(_too_large(source))
            digest.update(block)
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    if said.isdigit() and size != int(said):
        raise TransientError(f"{source.host} sent {size} of {said} bytes")
    return digest.hexdigest()


def _too_large(source: AddressSource) -> str:
    return (
        f"`{source.url}` holds more than {MOST_BYTES // 2**20} MiB, the most that is fetched: write the address of a "
        "smaller file."
    )
