# wants: use up the inodes (bounded at 20,000 files)
# caught by: caps
# as: train.py
import os

os.makedirs("many", exist_ok=True)
made = 0
try:
    for number in range(20_000):
        open(f"many/{number}", "w").close()
        made += 1
    print("wrote", made, "files")
except OSError as error:
    print("refused after", made, error)
