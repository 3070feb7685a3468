# wants: go on after it was told to stop (bounded at 120 s)
# caught by: caps
# as: train.py
import signal
import time

for sign in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM):
    signal.signal(sign, signal.SIG_IGN)
end = time.monotonic() + 120
while time.monotonic() < end:
    time.sleep(0.5)
print("ESCAPED: outlived its end")
