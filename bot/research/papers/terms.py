"""Hyperparameters of batches, schedules and lengths as papers name them; `vocabulary` holds all of them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Term:
    """One hyperparameter whose value is a number."""

    key: str
    before: str
    """Pattern of the words that a value follows: `learning rate` of `learning rate of 2e-5`; also of a table's name."""
    after: str = ""
    """Pattern of the words that follow a value: `epochs` of `3 epochs`. Empty where no such form is safe."""
    low: float = 0.0
    high: float = float("inf")
    whole: bool = False
    share: bool = False
    """A fraction of one: percentages are meant as such."""
    unit: str = ""
    trl: str = ""
    symbol: str = ""
    """Pattern of what only means this where the rest of the sentence says so (`β`, `α`, `r`)."""
    needs: str = ""
    """Pattern that the paragraph must hold for `symbol`."""
    tiny: bool = False
    """Values are powers of ten: `10-5` is one that lost its place, not a range."""


_NOT_BEFORE = (
    r"(?<!minimum )(?<!min )(?<!min\. )(?<!final )(?<!minimal )(?<!lowest )(?<!end "
    r")(?<!ending )(?<!smallest )(?<!critic )"
    r"(?<!decay )(?<!value )(?<!projector )(?<!encoder )(?<!critic's )(?<!critic-)(?<!embedding "
    r")(?<!model )(?<!generator )"
)
_BATCH = r"(?:batch[- ]?sizes?|batchsize|\bBS\b|\bbsz\b)"
_NOT_BATCH = (
    r"(?<!micro )(?<!micro-)(?<!micro)(?<!mini )(?<!mini-)(?<!mini)(?<!rollout "
    r")(?<!roll-out )(?<!device )(?<!GPU )(?<!gpu )"
    r"(?<!local )(?<!eval )(?<!evaluation )(?<!inference )(?<!generation )(?<!prompt "
    r")(?<!test )(?<!critic )(?<!sampling )"
    r"(?<!validation )(?<!update )(?<!device-)(?<!sample )(?<!prefill )(?<!decoding )(?<!per-device-)(?<!experience )"
)
ANSWERS = (
    r"(?:responses?|outputs?|completions?|rollouts?|roll-outs|samples?|answers?|generations?|trajectories|candidates|"
    r"solutions|candidate (?:responses|solutions|answers))"
)
QUESTIONS = r"(?:prompts?|questions?|quer(?:y|ies)|problems?|inputs?|instructions?|tasks?)"
_STEPS = r"(?:steps|iterations|updates|step)"
KL = (
    r"(?:KL|Kullback[-–]Leibler)(?:[- ](?:divergence|regulari[sz]ation|control|"
    r"reward))?(?:[- ](?:penalty|loss|term|regulari[sz]ation))?"
)

OF_THE_RUN: tuple[Term, ...] = (
    Term(
        "learning_rate",
        (
            rf"{_NOT_BEFORE}(?:\b(?:actor|policy)[- ])?(?:learning[- ]rates?\b|(?<![A-Za-z])[lL][rR]s?\b|"
            r"learning_rate)(?! (?:warm|multipl|ratio|factor))"
        ),
        (
            r"(?:(?:peak|maximum|max|initial|constant|base|fixed) )?(?:learning[- ]rate|"
            r"LR\b|lr\b)(?! (?:decay|warm|multipl))"
        ),
        low=1e-9,
        high=0.2,
        trl="learning_rate",
        tiny=True,
    ),
    Term(
        "min_lr",
        (
            r"(?:minimum|min\.?|minimal|final|end|ending|lowest) (?:learning[- ]rates?|LR|lr)\b|"
            r"(?:decay(?:s|ed|ing)?|anneal(?:s|ed|ing)?)[^.;,()\d]{0,60}? (?:down )?to(?= (?:a (?:minimum|"
            r"final value) of )?\d[\d.]* ?(?:[×·e]|\* ?10))"
        ),
        low=1e-12,
        high=0.1,
        tiny=True,
    ),
    Term(
        "warmup_ratio",
        (
            r"(?:warm-?\s?up[- _](?:step )?(?:ratio|fraction|proportion|rate|percentage)|"
            r"(?:ratio|fraction) of warm-?\s?up(?: steps)?)"
        ),
        low=0,
        high=0.5,
        share=True,
        trl="warmup_steps",
    ),
    Term(
        "warmup_steps",
        (
            r"(?:warm-?\s?up[- _](?:steps|iterations|updates)|(?:number|num\.?|#) of "
            r"warm-?\s?up steps|#\s?warm-?\s?up steps)"
        ),
        (
            rf"(?:linear )?(?:learning[- ]rate )?(?:linear )?warm-?\s?up[- ]{_STEPS}|"
            rf"{_STEPS} (?:of|for) (?:linear )?(?:learning[- ]rate )?warm-?\s?(?:up|ing)"
        ),
        low=0,
        high=1e6,
        whole=True,
        unit="steps",
        trl="warmup_steps",
    ),
    Term(
        "per_device_train_batch_size",
        (
            rf"(?:(?:per[- ](?:device|GPU)|micro|local|device|GPU)[- ]?{_BATCH}|{_BATCH} "
            r"per (?:device|GPU)|per[-_ ]device[-_ ]train[-_ ]batch[-_ ]size|(?:train(?:ing)? "
            rf")?{_BATCH} \(?per[- ](?:device|GPU)\)?|(?:each|every|a|per|one) (?:GPU|device|accelerator) "
            r"(?:processes|holds|sees|handles|gets|receives|fits|takes|has))"
        ),
        r"(?:(?:sequences|examples|samples|segments|pairs|prompts|images|dialogues) )?(?:at a time )?"
        r"(?:on|for|in) (?:each|every|a) (?:of (?:the |our )?(?:\w+ )?)?(?:GPU|device|accelerator)s?\b|"
        r"(?:per[- ](?:device|GPU)|micro)[- ]?batch[- ]?size|(?:samples|examples|sequences) per (?:device|GPU)\b",
        low=1,
        high=4096,
        whole=True,
        unit="sequences",
        trl="per_device_train_batch_size",
    ),
    Term(
        "rollout_batch_size",
        (
            rf"(?:rollout|roll-out|prompt|generation|experience|sampling)[- ]{_BATCH}|"
            r"rollout batch(?= of)"
        ),
        low=1,
        high=1e6,
        whole=True,
        unit="prompts",
    ),
    Term(
        "mini_batch_size",
        rf"(?:PPO |update |policy )?mini[- ]?{_BATCH}",
        r"(?:PPO )?mini-?batch size",
        low=1,
        high=1e6,
        whole=True,
        unit="sequences",
    ),
    Term(
        "global_batch_size",
        (
            rf"{_NOT_BATCH}(?:(?:global|total|effective|overall|training|train|optimi[sz]er) "
            rf")*{_BATCH}(?! per (?:device|GPU))(?! \(?per[- ](?:device|GPU))|(?:with|"
            r"in|using|,|are) batches\b|(?<!mini-)(?<!mini)(?<!micro-)\bbatches(?= of "
            r"[\d.,]+k? (?:sequences|pairs|questions|examples|samples|dialogues|prompts|"
            r"segments|instances|problems))|\b(?:a|global|effective) batch(?= of)"
        ),
        (
            r"(?:global |total |effective |training )?batch size(?! per)|(?:sequences|"
            r"pairs|questions|examples|samples|dialogues|conversations|comparisons|segments|instances|problems|images) "
            r"(?:per|in (?:a|each|every)|for each) (?:global )?(?:batch|update|(?:optimi[sz]er |gradient |"
            r"training )?step)\b(?! of [a-z])"
        ),
        low=1,
        high=5e7,
        whole=True,
        unit="sequences",
    ),
    Term(
        "gradient_accumulation_steps",
        (
            r"(?:gradient[- _]accumulation(?:[- _]steps?)?(?: (?:over|for|with|every|"
            r"across))?|(?:accumulat(?:es?|ed|ing) (?:the )?gradients? (?:over|for|across|"
            r"every))|gradients? (?:are |were |is )?accumulated (?:over|for|across)|"
            r"grad\.? acc(?:um(?:ulation)?)?\.?(?: steps)?)"
        ),
        r"(?:steps of )?gradient[- ]accumulation(?: steps?)?|accumulation steps",
        low=1,
        high=4096,
        whole=True,
        unit="steps",
        trl="gradient_accumulation_steps",
    ),
    Term(
        "num_iterations",
        (
            r"(?:PPO epochs|(?:number of )?(?:inner|optimi[sz]ation|PPO|policy update|"
            r"update) (?:epochs|iterations)(?: per (?:batch|step|rollout|iteration))?)"
        ),
        (
            r"(?:PPO|inner|optimi[sz]ation|policy|update) (?:epochs?|iterations?) per "
            r"(?:batch|rollout|step|iteration)|(?:PPO|inner) epochs?|epochs? per (?:batch|"
            r"rollout|rollout batch|iteration)\b"
        ),
        low=1,
        high=64,
        whole=True,
        trl="num_iterations",
    ),
    Term(
        "num_train_epochs",
        (
            r"(?<!PPO )(?<!inner )(?<!per )(?<!every )(?<!optimization )(?<!update )(?:(?:the "
            r")?(?:number|num\.?|no\.|#)\s?(?:of )?(?:training |train )?epochs?|(?:training "
            r"|train |total )?epochs\b|num_train_epochs|(?:SFT|DPO) epochs?)(?! (?:per|"
            r"of warm))"
        ),
        (
            r"(?:full |complete |training |whole |entire |DPO |SFT |total )?(?:epochs?\b|"
            r"pass(?:es)? (?:over|through)\b)(?!['’])(?! (?:per|of warm|warm|decay))"
        ),
        low=0.01,
        high=1000,
        unit="epochs",
        trl="num_train_epochs",
    ),
    Term(
        "max_steps",
        (
            r"(?<!up )(?<!per )(?<!accumulation )(?<!every )(?:(?:max(?:imum)?|total|"
            r"training|train|optimi[sz]ation|gradient|RL|number of|num\.?|#)[- ](?:number "
            r"of )?(?:training |gradient |update |optimi[sz]ation |train |RL )?(?:steps|"
            r"iterations)\b|max_steps)(?! per)"
        ),
        (
            r"(?:total |training |gradient |optimi[sz]ation |optimi[sz]er |update |policy "
            r"|RL |SFT |DPO |GRPO |gradient update |parameter update |policy update "
            r")*(?:steps|iterations|updates)\b(?! (?:of (?!training|fine)|for |per |"
            r"warm|every))"
        ),
        low=10,
        high=1e7,
        whole=True,
        unit="steps",
        trl="max_steps",
    ),
    Term(
        "total_episodes",
        r"(?:total |number of |# ?)?episodes",
        r"(?:PPO )?episodes\b(?! (?:per|in each|for each))",
        low=10,
        high=1e9,
        whole=True,
        unit="episodes",
    ),
    Term(
        "max_completion_length",
        (
            r"(?:max(?:imum|\.)?[- _]?(?:response|completion|generation|generated|output|"
            r"rollout|answer|reply|new|decoding)[- _]?(?:sequence )?(?:lengths?|tokens?|len)|"
            r"(?:response|completion|generation|output|rollout) (?:length|len)\b(?: "
            r"(?:limit|cap|budget))?|max(?:imum|\.)?(?: number of)? (?:new|generated|"
            r"output) tokens|max(?:imum|\.)? number of tokens (?:for|per|in|during) "
            r"(?:the |each )?(?:generation|response|rollout|completion)|max_new_tokens|"
            r"max_completion_length|(?:completions|"
            r"responses|outputs|generations|rollouts)(?: (?:are|were) (?:limited|truncated|cut|capped))? (?:to|at)"
            r"(?= (?:a maximum of |at most )?\d)|limit (?:the )?(?:responses|completions|outputs|generations|rollouts))"
        ),
        r"(?:new|generated|output|response|completion) tokens\b",
        low=1,
        high=2e6,
        whole=True,
        unit="tokens",
        trl="max_completion_length",
    ),
    Term(
        "max_prompt_length",
        (
            r"(?:max(?:imum|\.)?[- _]?)?(?:prompt|query)[- _](?:lengths?|tokens|len)\b|"
            r"\b[Pp]rompts (?:are|were) (?:limited|truncated|cut|capped)(?: to| at)?"
        ),
        low=1,
        high=2e6,
        whole=True,
        unit="tokens",
    ),
    Term(
        "max_length",
        (
            r"(?<!minimum )(?<!min )(?<!expected )(?<!average )(?<!mean )(?:max(?:imum|"
            r"imal|\.)?[- _]?(?:total |training )?(?:sequence|context|seq\.?|token|model|"
            r"total|text)?[- _]?(?:lengths?|len\b|tokens\b|window)|(?:sequence|context|"
            r"cut-?off|packing|seq\.?|token)[- _](?:lengths?|len\b|window)(?: (?:limit|"
            r"size))?|context[- ]size|max_(?:seq_)?length|model_max_length|(?:sequences|"
            r"inputs|examples|samples|conversations|dialogues|pairs|texts|together)(?: (?:are|"
            r"were))? (?:truncated|limited|capped|"
            r"packed|cut|at most)(?: (?:to|at|into|after))?(?! \d+ ?%))(?! (?:of|for) (?:the )?(?:response|prompt|"
            r"output|completion|generat))"
        ),
        r"(?:tokens? )?(?:maximum )?(?:sequence|context)[- ](?:length|window)",
        low=16,
        high=1e7,
        whole=True,
        unit="tokens",
        trl="max_length",
    ),
)
