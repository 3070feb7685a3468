# wants: hang or confuse who collects the outputs
# caught by: sandbox
# as: train.py
import os
import stat

os.makedirs("outputs", exist_ok=True)
os.mkfifo("outputs/metrics.jsonl")
try:
    os.mknod("outputs/model.safetensors", stat.S_IFCHR | 0o600, os.makedev(1, 5))
except OSError as error:
    print("refused:", error)
