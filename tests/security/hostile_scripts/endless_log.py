# wants: drown the log (bounded at 512 MiB)
# caught by: caps
# as: train.py
import sys

line = "loss 1.0 " * 1000 + "\n"
for _ in range(60_000):
    sys.stdout.write(line)
