"""The bot without a server: one process of a workflow for each event, its memory on git refs of the repository.

    postdoc respond --event "$GITHUB_EVENT_PATH"

It is the bot of `bot.server` without webhook and pages, started for one event. It takes the repository's lock, puts
the goals' journals back from their refs, hears the event as a webhook would have told it, acts until nothing is due
and no job runs, and gives the lock back. While a job runs here it goes and looks what people did, every 20 s, because
their events start other processes, which find the lock taken.

The workflow needs `on: issues, issue_comment, pull_request (closed, reopened, synchronize), schedule`, a concurrency
group for the whole repository that cancels nothing that is in progress, and the permissions `contents: write`,
`issues: write`, `pull-requests: write`, `checks: write`. Events of its own token start no workflow, and nothing here
waits for one: https://docs.github.com/en/actions/concepts/security/github_token

What lies where, each a commit that only ever moves forward:

    refs/postdoc/<issue>    journal.jsonl: the goal's journal, and the action that was decided and is not recorded yet
                            scripts/<digest>: the shipped scripts that the goal was agreed with
                            evaluations/<job>.json: scores by item hash, without any text of the benchmark
                            jobs/<job>.json: how to find a job on another machine again
    refs/postdoc/spending   spending.json: what all goals have reserved and spent by month, and halts
    refs/postdoc/lock       lock.json: which process is at work, until when, and whether others have rung

An action is on its ref before it is carried out, and its record is there before the next one is. So a process that is
killed at any point leaves a goal that the next one carries on: the same action, under the same keys, finds what it has
already done. What people did and no process noted is found by looking, under the keys of the happenings themselves.

Journals carry a seal (`bot.loop.record`). With the secret POSTDOC_JOURNAL_KEY nobody who cannot read that secret can
write one; without it whoever can push to the repository can, which is also who can change its workflows.

Not covered: whoever can push can delete these refs. A goal is then brought back from the record in its pull request's
own commits, or opened anew from its issue; what all goals have spent is then only what their journals tell.
"""
