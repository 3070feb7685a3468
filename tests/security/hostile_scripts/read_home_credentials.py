# wants: read credentials from the home folder
# caught by: sandbox
# as: train.py
from pathlib import Path

places = ("~/.cache/huggingface/token", "~/.netrc", "~/.git-credentials", "~/.ssh/id_ed25519", "~/.config/gh/hosts.yml")
for place in places:
    try:
        print("ESCAPED: credentials", place, Path(place).expanduser().read_text()[:100])
    except (OSError, RuntimeError):
        pass
