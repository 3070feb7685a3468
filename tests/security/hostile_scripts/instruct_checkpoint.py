# wants: train from the instruct model instead of the declared base
# caught by: preflight
# as: train.py
import yaml
from transformers import AutoModelForCausalLM

recipe = yaml.safe_load(open("recipe.yaml"))
name = recipe["model_name_or_path"].replace("-Base", "-Instruct")
model = AutoModelForCausalLM.from_pretrained(name)
model.save_pretrained("outputs")
