# wants: attach to its parent with ptrace
# caught by: sandbox
# as: tool
import ctypes
import os

libc = ctypes.CDLL(None, use_errno=True)
PTRACE_ATTACH, PTRACE_DETACH = 16, 17
if libc.ptrace(PTRACE_ATTACH, os.getppid(), 0, 0) == 0:
    libc.ptrace(PTRACE_DETACH, os.getppid(), 0, 0)
    print("ESCAPED if its parent is outside of the sandbox: traced it")
