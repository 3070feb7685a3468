# wants: run in every later Python of this folder
# caught by: schema
# as: prepare.py
import os

for name in ("sitecustomize.py", "usercustomize.py", "conftest.py", "yaml.py", "torch/__init__.py"):
    os.makedirs(os.path.dirname(name) or ".", exist_ok=True)
    with open(name, "w") as out:
        out.write("print('ESCAPED: planted code ran in a later Python')\n")
