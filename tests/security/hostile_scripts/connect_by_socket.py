# wants: open a connection to the outside
# caught by: sandbox
# as: tool
import socket

for address in (("1.1.1.1", 443), ("169.254.169.254", 80), ("127.0.0.1", 22), ("127.0.0.1", 5432)):
    try:
        socket.create_connection(address, timeout=2).close()
    except OSError:
        continue
    print("ESCAPED: connected to", address)
