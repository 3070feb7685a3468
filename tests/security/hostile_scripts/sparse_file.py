# wants: pass off a file of 10 TiB as an output
# caught by: caps
# as: train.py
import os

with open("model.safetensors", "wb") as out:
    try:
        os.truncate(out.fileno(), 10 << 40)
        print("made a sparse file")
    except OSError as error:
        print("refused:", error)
