# wants: take all threads of the machine (bounded at 2,000)
# caught by: caps
# as: tool
import threading

stop = threading.Event()
made = 0
try:
    for _ in range(2000):
        threading.Thread(target=stop.wait, args=(20,), daemon=True).start()
        made += 1
    print("ESCAPED: made 2000 threads")
except RuntimeError as error:
    print("refused after", made, error)
finally:
    stop.set()
