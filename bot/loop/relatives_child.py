"""Takes fingerprints of what is published beside and from a base model, as a process of its own: `python -m
bot.loop.relatives_child`, a request as JSON on standard input.

Asked for are the models whose card names the base, the most downloaded first, and those of its owner whose names begin
alike (`-Instruct` beside `-Base`). Of each some ranges of bytes are read, not the model; of one that is gated, the
digests of its files, which the Hub tells everybody.

    {"repo", "revision", "most", "own", "token", "seconds", "file"}; `own` are namespaces that this server publishes to,
                where what a goal has published is no stranger's
        -> {"models": [name, ...], "problems": [sentence, ...]}, and the table in `file`
    -> {"error", "detail", ...} as `hub_child` says it, where the base itself cannot be asked for
"""

from __future__ import annotations

import json
import re
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bot.errors import UserError
from bot.evaluation.lineage.published import Fingerprint, remote_fingerprint, write_table
from bot.evaluation.lineage.weights import INDEX
from bot.loop.hub_child import prepare, told

CALL_SECONDS = 20
_SUFFIX = re.compile(r"[-_.](?:base|pt|pretrain(?:ed)?|instruct|it|chat|sft|hf)$", re.IGNORECASE)
_LARGEST_INDEX = 16 << 20


def main() -> None:
    request: dict[str, Any] = json.load(sys.stdin)
    signal.alarm(int(request["seconds"]))
    prepare()
    try:
        print(json.dumps(gathered(request)))
    except Exception as error:
        print(json.dumps(told(error)))


def gathered(request: dict[str, Any]) -> dict[str, Any]:
    from huggingface_hub import HfApi

    api = HfApi(token=request["token"] or False)
    base = api.model_info(request["repo"], revision=request["revision"], files_metadata=True, timeout=CALL_SECONDS)
    own = {sha for _, sha in weights_of(base).values()}
    models: list[Fingerprint] = []
    problems: list[str] = []
    for name in relatives(api, request["repo"], int(request["most"])):
        try:
            info = api.model_info(name, files_metadata=True, timeout=CALL_SECONDS)
            files = weights_of(info)
            if _is_own(info, request["own"]):
                continue
            if files and {sha for _, sha in files.values()} != own:  # else a copy of the base, or no weights to read
                models.append(fingerprint(api, name, str(info.sha), files))
        except Exception as error:
            problems.append(f"{name}: {error if isinstance(error, UserError) else told(error)['error']}")
    write_table(Path(request["file"]), models)
    return {"models": [each.name for each in models], "problems": problems}


def relatives(api: Any, repo: str, most: int) -> Iterator[str]:
    """Names of models that were made from the base, or beside it."""
    owner, _, name = repo.rpartition("/")
    stem = _SUFFIX.sub("", name)
    seen = {repo}
    sources = [api.list_models(filter=f"base_model:{repo}", sort="downloads", limit=most)]
    if owner:
        sources.insert(0, api.list_models(author=owner, search=stem, sort="downloads", limit=most))
    for source in sources:
        for found in source:
            beside = found.id.rpartition("/")[2].startswith(stem) or found.id.rpartition("/")[0] != owner
            if found.id not in seen and beside and len(seen) <= most:
                seen.add(found.id)
                yield found.id


def _is_own(info: Any, namespaces: Sequence[str]) -> bool:
    card = info.card_data.to_dict() if info.card_data is not None else {}
    return "postdoc_goal" in card and info.id.partition("/")[0].lower() in {name.lower() for name in namespaces}


def weights_of(info: Any) -> dict[str, tuple[int, str]]:
    """File -> (bytes, SHA-256) of the weights and of their index."""
    return {
        file.rfilename: (int(file.size or 0), str(file.lfs.sha256) if file.lfs is not None else "")
        for file in info.siblings or ()
        if "/" not in file.rfilename and (file.rfilename.endswith(".safetensors") or file.rfilename == INDEX)
    }


def fingerprint(api: Any, name: str, revision: str, files: dict[str, tuple[int, str]]) -> Fingerprint:
    from huggingface_hub.errors import HfHubHTTPError

    def read(ranges: Sequence[tuple[str, int, int]]) -> list[bytes]:
        return [_part(api, name, revision, *each) for each in ranges]

    try:
        index = None
        if INDEX in files and "model.safetensors" not in files:
            size = files[INDEX][0]
            if size > _LARGEST_INDEX:
                raise UserError(f"its `{INDEX}` has {size:,} bytes")
            (index,) = read([(INDEX, 0, size)])
        shards = {each: about for each, about in files.items() if each != INDEX}
        return remote_fingerprint(name, revision, shards, index, read)
    except HfHubHTTPError:
        digests = {each: sha for each, (_, sha) in files.items() if sha}
        if not digests:
            raise
        return Fingerprint(name, revision, (), digests)


def _part(api: Any, name: str, revision: str, file: str, start: int, stop: int) -> bytes:
    """Bytes `start` to `stop` of a file, and never more, also from a server that does not know ranges."""
    from huggingface_hub import get_session, hf_hub_url
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

    url = hf_hub_url(name, file, revision=revision, endpoint=api.endpoint)
    headers = {**build_hf_headers(token=api.token), "Range": f"bytes={start}-{stop - 1}", "Accept-Encoding": "identity"}
    with get_session().stream("GET", url, headers=headers, timeout=CALL_SECONDS) as response:
        hf_raise_for_status(response)
        skip = 0 if response.status_code == 206 else start
        content = b""
        for block in response.iter_bytes():
            content += block
            if len(content) >= skip + stop - start or skip > _LARGEST_INDEX:
                break
    content = content[skip : skip + stop - start]
    if len(content) != stop - start:
        raise UserError(f"`{file}` could not be read in parts")
    return content


if __name__ == "__main__":
    main()
