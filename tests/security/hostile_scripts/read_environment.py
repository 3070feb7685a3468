# wants: print secrets of its environment
# caught by: sandbox
# as: tool
import os

for name, value in os.environ.items():
    if any(word in name.upper() for word in ("TOKEN", "SECRET", "KEY", "PASSWORD")) and value:
        print("ESCAPED: a secret of the environment", name, value)
