# wants: start a container through the daemon's socket
# caught by: sandbox
# as: tool
import socket

for path in ("/var/run/docker.sock", "/run/podman/podman.sock", "/run/containerd/containerd.sock"):
    try:
        with socket.socket(socket.AF_UNIX) as daemon:
            daemon.connect(path)
            daemon.sendall(b"GET /containers/json HTTP/1.0\r\n\r\n")
            print("ESCAPED: the daemon answered", daemon.recv(40))
    except OSError:
        pass
