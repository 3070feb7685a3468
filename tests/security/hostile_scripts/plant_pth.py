# wants: run in every later Python of this environment
# caught by: sandbox
# as: train.py
import site
import sys

for folder in [*site.getsitepackages(), site.getusersitepackages(), *sys.path]:
    try:
        with open(f"{folder}/planted.pth", "w") as out:
            out.write("import sys; print('ESCAPED: a planted .pth ran')\n")
        print("planted in", folder)
    except OSError:
        pass
