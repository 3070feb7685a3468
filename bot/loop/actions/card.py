"""The experiment's README.md, which is its report and the model's card, from what the journal holds."""

from __future__ import annotations

from typing import Any

from bot.data.card import report_card
from bot.domain.data_source import HubSource, parse_source
from bot.domain.experiment import Experiment, JobRole, Run, Score
from bot.loop.actions.specs import sources_of, trained_model
from bot.loop.spending import data_key, spend_of
from bot.loop.world import World
from runners.hardware.gpus import gpu_named


def experiment_card(world: World, x: Experiment, *, published_as: str = "") -> bytes:
    """README.md of the experiment's folder, as it stands now.

    `published_as`, a repository of the Hub, makes it the card of the best model there.
    """
    assert x.goal is not None
    checked = x.data.get(data_key(x.recipe, x.recipe_digests), {})
    licences = checked.get("licences", {})
    together = checked.get("combination", {})
    best = x.best_run
    context: dict[str, Any] = {
        "goal": x.goal.as_dict() | {"title": x.goal.title or x.title},
        "state": str(x.state),
        "state_reason": x.reason,
        "issue": f"#{x.issue}",
        "pull_request": f"#{x.pull_request}" if x.pull_request is not None else "",
        "baseline": _evaluation(x, x.baseline, x.goal.base_model) if x.baseline else None,
        "best": _best(x, best) if best is not None else None,
        "confirmation": _confirmation(x),
        "runs": [_row(x, run) for run in x.runs if run.diagnosed],
        "ablations": [{"n": ablation.n, "key": ablation.key, "rows": ablation.rows}
                      for ablation in x.ablations if ablation.rows],
        "licences": [{"what": name, "identifier": gate["found"], "source": "", "cautions": gate["cautions"]}
                     for name, gate in licences.items()],
        "combination": together,
        "lineage": best.lineage if best is not None else None,
        "languages": checked.get("audit", {}).get("languages"),
        "asked_in": checked.get("asked_in"),
        "energy": energy_of(x),
        "model_licence": together.get("output") or licences.get(x.goal.base_model, {}).get("found"),
        "contamination": checked.get("scan"),
        "spend": spend_of(x).as_dict(),
        "reproduce": f"uv run train.py --config recipe.yaml  # {', '.join(sources_of(x.recipe))}, seed {x.goal.seed}",
        "provenance": _provenance(x, best),
    }  # fmt: skip
    if best is not None:
        path = published_as or str(trained_model(world, x, best.n))
        load = f'from transformers import AutoModelForCausalLM\nmodel = AutoModelForCausalLM.from_pretrained("{path}")'
        where = "on the Hub" if published_as else "on the server that trained it"
        context["model"] = {"path": path, "visibility": where, "load": load}
    if published_as:
        assert best is not None
        context |= {"published_goal": x.goal_id, "datasets": _hub_data(best.recipe)}
    return report_card(context).encode()


def energy_of(x: Experiment) -> dict[str, Any] | None:
    """What the goal's jobs took by the rated power of their GPUs; None where that is not known, as without one."""
    facts = next((each["hardware"] for each in x.data.values() if each.get("hardware")), None)
    flavor = (facts or {}).get("flavors") or []
    gpu = gpu_named(flavor[0]["gpu_model"] or flavor[0]["name"]) if flavor and flavor[0]["gpus"] else None
    if facts is None or gpu is None or gpu.watts is None:
        return None
    gpus, hours = max(1, int(facts.get("gpus") or 1)) * int(facts.get("nodes") or 1), x.job_hours()
    return {"kwh": hours * gpus * gpu.watts / 1000, "hours": hours, "gpus": gpus, "gpu": gpu.name, "watts": gpu.watts}


def _hub_data(recipe: str) -> list[str]:
    """Data sets of the Hub that the recipe trains on."""
    found = [parse_source(line) for line in sources_of(recipe) if line.startswith("hf:")]
    return [source.repo for source in found if isinstance(source, HubSource)]


def _evaluation(x: Experiment, score: Score, model: str) -> dict[str, Any]:
    assert x.goal is not None
    return {
        "benchmark": x.goal.benchmark,
        "harness_digest": score.harness_digest,
        "model": model,
        "metric": x.goal.metric,
        "value": score.value,
        "standard_error": score.standard_error,
        "n": score.n,
        "split": score.split,
    }


def _best(x: Experiment, run: Run) -> dict[str, Any]:
    assert run.score is not None
    return {"run": run.n, "evaluation": _evaluation(x, run.score, f"run {run.n}"), "comparison": run.against_baseline}


def _confirmation(x: Experiment) -> dict[str, Any] | None:
    found = x.confirmation
    if found is None or found["score"] is None:
        return None
    score = Score.from_dict(found["score"])
    return {"evaluation": _evaluation(x, score, f"run {found['run']}"), "confirmed": found["confirmed"],
            "reason": found["reason"]}  # fmt: skip


def _row(x: Experiment, run: Run) -> dict[str, Any]:
    train = x.job_for(JobRole.TRAIN, run.n)
    return {
        "n": run.n,
        "method": run.method,
        "value": run.score.value if run.score else None,
        "interval": (run.score.ci_low, run.score.ci_high) if run.score else None,
        "n_items": run.score.n if run.score else None,
        "verdict": run.verdict,
        "symptoms": run.symptoms,
        "changed": [{"key": key, "before": pair[0], "after": pair[1]} for key, pair in run.changed.items()],
        "seconds": train.seconds if train is not None else None,
    }


def _provenance(x: Experiment, best: Run | None) -> dict[str, str]:
    assert x.goal is not None
    found = {"goal hash": x.goal.hash, "base model": f"{x.goal.base_model} @ {x.goal.base_revision}"}
    if best is not None and best.score is not None:
        found |= {
            "commit of the best run": best.head_sha,
            "recipe hash": best.recipe_hash,
            "train.py": best.digests.get("train.py", "")[:16],
            "evaluator": best.score.harness_digest[:16],
        }
    return found
