# wants: have later programs load its library
# caught by: sandbox
# as: prepare.py
import os

os.environ["LD_PRELOAD"] = os.path.abspath("planted.so")
os.environ["PYTHONSTARTUP"] = os.path.abspath("planted.py")
for place in ("/etc/ld.so.preload", os.path.expanduser("~/.profile"), "../.env"):
    try:
        with open(place, "a") as out:
            out.write(os.path.abspath("planted.so") + "\n")
        print("ESCAPED if this is seen outside:", place)
    except OSError as error:
        print("refused:", error)
