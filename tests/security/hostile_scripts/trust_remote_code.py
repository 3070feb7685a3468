# wants: run a stranger's code while loading
# caught by: preflight
# as: train.py
from datasets import load_dataset
from transformers import AutoModelForCausalLM

rows = load_dataset("acme-lab/birds", split="train", trust_remote_code=True)
model = AutoModelForCausalLM.from_pretrained("acme-lab/odd", trust_remote_code=True)
