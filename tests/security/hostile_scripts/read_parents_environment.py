# wants: read secrets of its parents through /proc
# caught by: sandbox
# as: train.py
import os
from pathlib import Path

for entry in Path("/proc").glob("[0-9]*"):
    if int(entry.name) == os.getpid():
        continue
    try:
        held = (entry / "environ").read_bytes()
    except OSError:
        continue
    if any(word in held for word in (b"TOKEN=", b"SECRET=", b"API_KEY=")):
        print("ESCAPED: the environment of process", entry.name, held[:200])
