"""Start a training script in several processes, one for each GPU, and end as it ended.

    python launch.py --config_file accelerate.yaml train.py --config recipe.yaml

It is `accelerate launch` with two differences. The script's own exit code is passed on (2 means that the recipe or the
data must change), and its own last words stay the last ones. And where several machines train together, MASTER_ADDR,
MASTER_PORT and NODE_RANK say which one this is, as they do for torchrun.
"""

import logging
import os
import signal
import sys

from accelerate.commands.launch import launch_command, launch_command_parser
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError


def machine_arguments() -> list[str]:
    if "NODE_RANK" not in os.environ:
        return []
    return [
        *("--machine_rank", os.environ["NODE_RANK"]),
        *("--main_process_ip", os.environ["MASTER_ADDR"]),
        *("--main_process_port", os.environ["MASTER_PORT"]),
    ]


def exit_code_of(error: ChildFailedError) -> int:
    """Of the process that failed first; 128 + n for signal n, as a shell has it."""
    _, failure = error.get_first_failure()
    return 128 - failure.exitcode if failure.exitcode < 0 else failure.exitcode or 1


def main() -> int:
    # It reports every failed process in a frame of its own, below the words of the script that says what is wrong.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    # Otherwise a time-out or a cancelled job leaves a traceback of the launcher behind the script's words.
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    arguments = launch_command_parser().parse_args([*machine_arguments(), *sys.argv[1:]])
    try:
        launch_command(arguments)
    except ChildFailedError as error:
        return exit_code_of(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
