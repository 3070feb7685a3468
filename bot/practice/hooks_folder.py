"""The one git hook of the practice forge: workflow files pushed by an App are refused, as GitHub refuses them."""

from __future__ import annotations

from pathlib import Path

REFUSE_WORKFLOWS = "POSTDOC_PRACTICE_REFUSE_WORKFLOWS"
"""Set to 1 in the environment of a push by an App without the `workflows` permission."""

_UPDATE_HOOK = f"""\
#!/bin/sh
[ "${REFUSE_WORKFLOWS}" = 1 ] || exit 0
case "$3" in *[!0]*) ;; *) exit 0 ;; esac
case "$2" in *[!0]*) changed=$(git diff-tree -r --name-only "$2" "$3" -- .github/workflows) ;;
*) default=$(git rev-parse --verify --quiet HEAD || git hash-object -t tree /dev/null)
   changed=$(git diff-tree -r --name-only "$default" "$3" -- .github/workflows) ;;
esac
[ -z "$changed" ] && exit 0
first=$(printf '%s\\n' "$changed" | head -n 1)
echo "refusing to allow a GitHub App to create or update workflow \\`$first\\` without \\`workflows\\` permission" >&2
exit 1
"""


def create(root: Path) -> Path:
    """Writes the hooks folder that every repository under `root` uses, and returns it."""
    folder = root / ".hooks"
    folder.mkdir(exist_ok=True)
    hook = folder / "update"
    hook.write_text(_UPDATE_HOOK)
    hook.chmod(0o755)
    return folder
