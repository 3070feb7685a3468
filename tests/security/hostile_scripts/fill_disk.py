# wants: fill the disk (bounded at 2 GiB)
# caught by: caps
# as: train.py
# Bounded: 2 GiB; a cap below that must stop it. What was written is removed.
import os

block = os.urandom(1 << 20)
written = 0
try:
    with open("outputs.bin", "wb") as out:
        for _ in range(2048):
            out.write(block)
            out.flush()
            written += 1
    print("ESCAPED: wrote 2 GiB")
except OSError as error:
    print("refused after", written, "MiB:", error)
finally:
    os.unlink("outputs.bin")
