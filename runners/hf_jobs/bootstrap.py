"""The first words of a job's container, sent as the text of `python -c`: it fetches our own code and goes on in it.

    python -c THIS '{"endpoint", "repository", "code": [revision, sha256, path], ...}'

The token is in one environment variable, which is taken out at once; PR_SET_DUMPABLE then gives /proc/PID of this
process to root, so that a process of the same user cannot read what the kernel keeps of the first environment.
"""

import ctypes
import hashlib
import json
import os
import shutil
import sys
import tarfile
import tempfile
from typing import Any

_PR_SET_DUMPABLE = 4


def start(config: dict[str, Any]) -> int:
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    token = os.environ.pop(config["variable"], "")
    if sys.version_info < (3, 11):  # noqa: UP036 - the image's is another one
        print(f"postdoc: this image has Python {sys.version.split()[0]}; jobs need 3.11 or newer", flush=True)
        return 2
    os.umask(0o022)
    # Read by the library when it is imported.
    os.environ.update(HF_ENDPOINT=config["endpoint"], HF_HUB_DISABLE_XET="1", HF_HUB_DISABLE_TELEMETRY="1")
    os.environ.update(HF_HUB_DISABLE_PROGRESS_BARS="1", HF_HUB_DISABLE_IMPLICIT_TOKEN="1")
    try:
        from huggingface_hub import hf_hub_download
    except ImportError:
        print("postdoc: this image has no huggingface_hub; use the training image, or install it there", flush=True)
        return 2
    home = tempfile.mkdtemp(prefix="postdoc-")
    os.chmod(home, 0o711)  # noqa: S103 - the script, another user, walks through it
    revision, digest, path = config["code"]
    archive = hf_hub_download(
        config["repository"], path, revision=revision, token=token, local_dir=os.path.join(home, "fetched")
    )
    with open(archive, "rb") as file:
        content = file.read()
    if hashlib.sha256(content).hexdigest() != digest:
        # Another job that got hold of the token may have put it there.
        print("postdoc: the code in the runs repository is not what was sent; the job is not started", flush=True)
        return 2
    with tarfile.open(archive) as tar:
        tar.extractall(os.path.join(home, "code"), filter="data")
    shutil.rmtree(os.path.join(home, "fetched"))
    sys.path.insert(0, os.path.join(home, "code"))
    from runners.hf_jobs.container import main

    return main(config, token, home)


if __name__ == "__main__":
    sys.exit(start(json.loads(sys.argv[1])))
