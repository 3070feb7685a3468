# wants: have a file of the host published through a hard link
# caught by: sandbox
# as: train.py
import os

os.makedirs("outputs", exist_ok=True)
for target in ("/etc/passwd", "/etc/hosts", "/usr/bin/env"):
    try:
        os.link(target, "outputs/" + os.path.basename(target))
        print("ESCAPED: linked", target)
    except OSError as error:
        print("refused:", error)
