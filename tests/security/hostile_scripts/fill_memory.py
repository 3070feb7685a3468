# wants: take all memory (bounded at 3 GiB)
# caught by: caps
# as: train.py
# Bounded: 3 GiB, each page written so that it counts; a cap below that must end it.
import os

held = []
for _ in range(48):
    held.append(os.urandom(1 << 20) * 64)
print("ESCAPED: holds 3 GiB")
