# wants: fetch an address
# caught by: sandbox
# as: prepare.py
import urllib.request

try:
    with urllib.request.urlopen("http://example.org/", timeout=3) as answer:
        print("ESCAPED: fetched", answer.status)
except OSError as error:
    print("refused:", error)
