# wants: send packets by a raw socket
# caught by: sandbox
# as: tool
import socket

for family, kind, protocol in ((socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP), (17, socket.SOCK_RAW, 0x0300)):
    try:
        with socket.socket(family, kind, protocol) as raw:
            raw.sendto(b"\x08\x00\xf7\xff\x00\x00\x00\x00", ("1.1.1.1", 0))
    except OSError as error:
        print("refused:", error)
    else:
        print("ESCAPED: sent a raw packet")
