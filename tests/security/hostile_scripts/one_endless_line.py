# wants: drown the log with a line that does not end (bounded at 256 MiB)
# caught by: caps
# as: tool
import sys

for _ in range(4096):
    sys.stdout.write("x" * 65536)
    sys.stdout.flush()
