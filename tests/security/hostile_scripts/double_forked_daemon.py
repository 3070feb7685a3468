# wants: leave a process behind (it ends by itself after 60 s)
# caught by: sandbox
# as: train.py
import os
import time

if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            try:
                with open("daemon.txt", "a") as out:
                    out.write(f"{os.getpid()} still here\n")
            except OSError:
                pass
            time.sleep(1)
    os._exit(0)
