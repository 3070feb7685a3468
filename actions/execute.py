"""The step that does what was asked for. Its exit code is 0 whatever was found, so that the report comes first."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path

from actions.child import interrupt_on_termination
from actions.request import Mode, Request, request_of
from actions.result import Result
from actions.workflow_commands import annotate, mask, others_words, read_event, set_outputs
from bot.domain.redaction import redact
from bot.errors import PostdocError, UserError

INTERRUPTED = 130


def mode_function(request: Request) -> Callable[[Request], Result]:
    """Imported when it is known which: two of the five need nothing of training."""
    match request.mode:
        case Mode.TRAIN if request.store:
            from actions.dispatched import train_dispatched

            return train_dispatched
        case Mode.TRAIN:
            from actions.training import train

            return train
        case Mode.EVALUATE:
            from actions.evaluating import evaluate

            return evaluate
        case Mode.GATE:
            from actions.evaluating import gate

            return gate
        case Mode.PURSUE:
            from actions.goals import pursue

            return pursue
        case Mode.RESPOND:
            from actions.goals import respond

            return respond


def main(environment: Mapping[str, str] = os.environ) -> int:
    interrupt_on_termination()
    for name in ("INPUT_GITHUB_TOKEN", "POSTDOC_JOURNAL_KEY", "HF_TOKEN", "POSTDOC_HUB_TOKEN", "POSTDOC_BRAIN_KEY"):
        mask(environment.get(name, ""))
    folder = Path(environment["POSTDOC_FOLDER"])
    mode = environment.get("INPUT_MODE", "")
    result = outcome(environment, folder, mode)
    result.write(folder)
    set_outputs(result.outputs())
    return INTERRUPTED if result.exit_code == INTERRUPTED else 0


def outcome(environment: Mapping[str, str], folder: Path, mode: str) -> Result:
    """What the mode found, or why it found nothing: no traceback reaches a person but as a bug's."""
    try:
        request = request_of(environment, read_event())
        return mode_function(request)(request)
    except KeyboardInterrupt:
        return Result(mode, "cancelled", INTERRUPTED, "Cancelled; what was there until then is in the artifact.")
    except UserError as error:
        return _ended(mode, "refused", 2, str(error))
    except PostdocError as error:
        return _ended(mode, "failed", 1, str(error))
    except Exception as error:
        with others_words():
            print(redact(traceback.format_exc()))
        return _ended(mode, "failed", 1, f"Something went wrong on our side ({type(error).__name__}); the log has it.")


def _ended(mode: str, state: str, exit_code: int, why: str) -> Result:
    why = redact(why)
    annotate("error", why, title=f"Postdoc {mode}")
    return Result(mode, state, exit_code, why[:1].upper() + why[1:])


if __name__ == "__main__":
    sys.exit(main())
