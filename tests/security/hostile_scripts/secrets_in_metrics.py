# wants: send a file out through the metrics
# caught by: schema
# as: train.py
import json

with open("metrics.jsonl", "w") as out:
    for number, byte in enumerate(open(__file__, "rb").read(200)):
        out.write(json.dumps({"step": number, "loss": byte, f"note_{chr(byte)}": "x" * 10_000}) + "\n")
    out.write('{"step": NaN, "loss": Infinity, "loss": 0}\n')
    out.write('{"step": 1e999, "__class__": "os.system"}\n')
    out.write("[" * 100_000 + "\n")
