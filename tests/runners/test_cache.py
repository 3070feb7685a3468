"""The machine's Hugging Face cache inside a job: read by all, written by none, and without the user's token."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bot.errors import UserError
from runners.cache import Shared, shared_cache
from runners.job import JobId, JobState
from runners.sandbox import Layer
from runners.tier import Tier
from tests.runners.conftest import REPORTS

REVISION = "a" * 40
LOOK = """
import json, os
from pathlib import Path
hub = Path(os.environ["HF_HUB_CACHE"])
own = Path(os.environ["HF_HOME"]) / "datasets"
def refused(path):
    try:
        open(path, "w").close()
    except OSError:
        return True
    return False
data = own / "acme___rows" / "default" / "data.arrow"
json.dump({
    "config": (hub / "models--acme--tiny/snapshots" / ("a" * 40) / "config.json").read_text(),
    "rows": data.read_text(), "datasets": sorted(os.listdir(own)),
    "written": [str(path) for path in (hub / "new", hub / "models--acme--tiny/blobs/f00", data) if not refused(path)],
    "beside": (data.parent / "cache-1.arrow").write_text("a step of map"),
    "token": any((folder / "token").exists() for folder in (hub, hub.parent, own, own.parent)),
}, open("seen.json", "w"))
"""


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    folder = tmp_path / "huggingface"
    repository = folder / "hub/models--acme--tiny"
    snapshot = repository / "snapshots" / REVISION
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    (repository / "blobs/f00").write_text("{}")
    (snapshot / "config.json").symlink_to("../../blobs/f00")
    for name in ("acme___rows", "json"):
        (folder / "datasets" / name / "default").mkdir(parents=True)
        (folder / "datasets" / name / "default/data.arrow").write_text("rows")
    (folder / "token").write_text("the user's own")
    return folder


def test_jobs_read_the_cache_and_cannot_write_to_it(tier, new_runner, script, finish, cache):
    if tier.tier is Tier.PLAIN and Layer.LANDLOCK not in REPORTS[Tier.PLAIN].layers:
        pytest.skip("nothing keeps a plain job from writing here")
    runner = new_runner(tier=tier.tier, cache=cache)
    assert finish(runner, script(LOOK)).state is JobState.SUCCEEDED, runner.log_tail(JobId("job"))
    seen = json.loads((runner.folder(JobId("job")) / "seen.json").read_text())
    assert (seen["config"], seen["rows"], seen["datasets"]) == ("{}", "rows", ["acme___rows"])
    assert seen["written"] == []
    if tier.tier is not Tier.PLAIN:
        assert not seen["token"]
    assert (cache / "hub/models--acme--tiny/blobs/f00").read_text() == "{}"
    assert (cache / "datasets/acme___rows/default/data.arrow").read_text() == "rows"


def test_hub_folder_itself_is_a_cache_too_and_anything_else_is_refused(cache, tmp_path):
    assert shared_cache(cache) == Shared(str(cache / "hub"), str(cache / "datasets"))
    assert shared_cache(cache / "hub") == Shared(str(cache / "hub"))
    assert shared_cache(None) == Shared()
    for wrong in (tmp_path, tmp_path / "none"):
        with pytest.raises(UserError, match="name the folder that holds `hub` or `datasets`"):
            shared_cache(wrong)
