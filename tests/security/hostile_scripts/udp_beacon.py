# wants: send data out by UDP without connecting
# caught by: sandbox
# as: train.py
import socket

with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
    try:
        out.sendto(b"hello", ("192.0.2.1", 53))
        print("ESCAPED: sent a datagram")
    except OSError as error:
        print("refused:", error)
