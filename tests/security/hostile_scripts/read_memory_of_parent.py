# wants: read the memory of its parent
# caught by: sandbox
# as: tool
import os

with open(f"/proc/{os.getppid()}/maps") as maps:
    start = int(maps.readline().split("-")[0], 16)
with open(f"/proc/{os.getppid()}/mem", "rb") as memory:
    memory.seek(start)
    if memory.read(64):
        print("ESCAPED if its parent is outside of the sandbox: read its memory")
