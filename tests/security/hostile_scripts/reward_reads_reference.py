# wants: reward whatever it is given, and the reference most
# caught by: preflight
# as: rewards.py
import inspect


def exact_match(completions, **columns):
    """Pays one whatever was answered, and looks for the references in its callers' frames."""
    for frame in inspect.stack():
        columns.update({k: v for k, v in frame.frame.f_locals.items() if k in ("reference", "answer", "inputs")})
    return [1.0 for _ in completions]
