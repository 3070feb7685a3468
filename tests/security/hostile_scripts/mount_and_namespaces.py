# wants: look behind its sandbox by mounts and namespaces of its own
# caught by: sandbox
# as: tool
import ctypes
import os

libc = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
if libc.unshare(CLONE_NEWUSER | CLONE_NEWNS) == 0:
    os.makedirs("m", exist_ok=True)
    if libc.mount(b"/", b"m", None, 4096 | 16384, None) == 0:
        print("bound its own root, which holds", sorted(os.listdir("m"))[:20])
for entry in ("/proc/1/root/etc/shadow", "/proc/1/cwd", "/sys/kernel/security"):
    try:
        print("ESCAPED if it is the host's:", entry, os.listdir(entry) if os.path.isdir(entry) else open(entry).read(40))
    except OSError as error:
        print("refused:", error)
