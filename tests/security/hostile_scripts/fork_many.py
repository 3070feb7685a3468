# wants: take all processes of the machine (bounded at 400)
# caught by: caps
# as: tool
# Bounded: 400 children that sleep; a limit below that must stop it.
import os
import time

children = []
try:
    for _ in range(400):
        child = os.fork()
        if child == 0:
            time.sleep(5)
            os._exit(0)
        children.append(child)
    print("ESCAPED: made 400 processes")
except OSError as error:
    print("refused:", error)
finally:
    for child in children:
        try:
            os.kill(child, 9)
            os.waitpid(child, 0)
        except OSError:
            pass
