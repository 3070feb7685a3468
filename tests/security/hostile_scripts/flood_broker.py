# wants: stop the broker by half a message and by a flood
# caught by: caps
# as: tool
import os
import socket

for name in os.environ:
    if "SOCKET" in name or "BROKER" in name:
        held = []
        for _ in range(200):
            try:
                one = socket.socket(socket.AF_UNIX)
                one.connect(os.environ[name])
                one.sendall(b'{"id": 1, "function": "papers.search", "arguments": {"query": "')
                held.append(one)
            except OSError:
                break
        print("held open", len(held))
