"""Base models: found in a folder of this machine, or fetched from the Hub by exact revision before a job needs them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path

from bot.domain.goal import digest_of
from bot.errors import TransientError, UserError

_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_COMMIT = re.compile(r"[0-9a-f]{40}")


def local_model(folders: Sequence[Path], name: str) -> Path | None:
    """`<folder>/<name>` where a model lies there; a name that would lead out of the folder finds nothing."""
    if not all(_PART.fullmatch(part) for part in name.split("/")):
        return None
    for folder in folders:
        path = folder / name
        if (path / "config.json").is_file():
            return path.resolve()
    return None


def model_problem(folders: Sequence[Path], name: str, revision: str = "main") -> str | None:
    """Why `name` cannot be trained from, in words for its author; None when it can. Blocks on the network."""
    if local_model(folders, name) is not None:
        return None
    from huggingface_hub import HfApi  # imported late: 50 MiB that a server of local models never needs
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HFValidationError, RepositoryNotFoundError

    known = ", ".join(f"`{found}`" for found in local_models(folders)) or "none"
    try:
        HfApi().model_info(name, revision=revision, timeout=10)
    except GatedRepoError:
        return (
            f"`{name}` is gated on the Hub: accept its terms at https://huggingface.co/{name} with an account, and "
            "have that account's token set as HF_TOKEN where this server runs."
        )
    except (RepositoryNotFoundError, HFValidationError):
        return f"There is no base model `{name}` on the Hub or on this server (here: {known})."
    except (HfHubHTTPError, OSError) as error:
        kind = type(error).__name__
        return (
            f"There is no base model `{name}` on this server (here: {known}), and the Hub could not be asked ({kind})."
        )
    return None


def local_models(folders: Sequence[Path]) -> list[str]:
    """Names of the models that lie in the folders."""
    found = set()
    for folder in folders:
        for config in folder.glob("*/*/config.json"):
            found.add(config.parent.relative_to(folder).as_posix())
    return sorted(found)


def fetched_model(folders: Sequence[Path], name: str, revision: str) -> Path:
    """The model's folder, downloaded first when it only lies on the Hub. Blocks for as long as that takes.

    Raises: UserError when the Hub refuses, TransientError when it cannot be reached.
    """
    found = local_model(folders, name)
    if found is not None:
        return found
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

    target = folders[-1] / name
    try:
        # Weights as safetensors only: a pickle could run code where it is loaded.
        snapshot_download(
            name, revision=revision, local_dir=target,
            allow_patterns=["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja", "README.md", "LICENSE*"],
        )  # fmt: skip
    except (GatedRepoError, RepositoryNotFoundError) as error:
        raise UserError(f"The Hub does not give us `{name}` at `{revision}`: {type(error).__name__}.") from error
    except (HfHubHTTPError, OSError) as error:
        raise TransientError(f"the Hub could not be reached for {name}: {type(error).__name__}") from error
    return target


def weights_digest(folder: Path) -> str:
    """SHA-256 over a model's safetensors files and their names, as every evaluation has it under `weights`; empty where
    it has none."""
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            found[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return digest_of(found) if found else ""


def hub_origin(folder: Path, name: str) -> str:
    """`hub:NAME@COMMIT` of a model that was fetched into `folder`, for machines that fetch it themselves; empty when it
    did not come from there as one commit, or was changed since.

    What the Hub's client notes beside each file is read: its commit, its hash and when it was fetched
    (https://huggingface.co/docs/huggingface_hub/guides/download#download-files-to-a-local-folder).
    """
    commits = set()
    for path in folder.rglob("*"):
        inside = path.relative_to(folder)
        if inside.parts[0] == ".cache" or not path.is_file():
            continue
        try:
            note = (folder / ".cache" / "huggingface" / "download" / f"{inside}.metadata").read_text(encoding="ascii")
            commit, _, fetched_at = note.splitlines()[:3]
            if path.stat().st_mtime - 1 > float(fetched_at):
                return ""
        except (OSError, ValueError):
            return ""
        commits.add(commit)
    commit = commits.pop() if len(commits) == 1 else ""
    return f"hub:{name}@{commit}" if _COMMIT.fullmatch(commit) else ""


def describe_model(folder: Path) -> tuple[str, float]:
    """(family, parameter count) of the model in `folder`, from its files' headers alone."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    total = 0.0
    for weights in folder.glob("*.safetensors"):
        with weights.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
        for name, tensor in header.items():
            if name != "__metadata__":
                size = 1
                for dimension in tensor["shape"]:
                    size *= dimension
                total += size
    return str(config.get("model_type", "unknown")), total


def longest_sequence(folder: Path) -> int | None:
    """Tokens of the longest sequence that the model in `folder` takes, as its configuration has it; None where it says
    nothing of it (GPT-2 calls it `n_positions`)."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    found = config.get("max_position_embeddings") or config.get("n_positions")
    return found if isinstance(found, int) and found > 1 else None


def writes_several_languages(folder: Path) -> bool:
    """Whether the speech recogniser in `folder` begins what it writes with a token of its language (Whisper's
    `lang_to_id`); its English-only models have none."""
    path = folder / "generation_config.json"
    return path.is_file() and bool(json.loads(path.read_text(encoding="utf-8")).get("lang_to_id"))
