"""Words that tell whose values a sentence or a section tells, and whether they were settled on."""

from __future__ import annotations

import re

OURS = re.compile(r"\b(?:we|our|ours|us)\b", re.IGNORECASE)
CITATION = (
    r"(?:\bet al\.?,?\s*(?:\(|\[)?\d{0,4}[a-z]?(?:\)|\])?|\[\d+(?:,\s*\d+)*\]|\([A-Z][^()]{2,60}?,? \d{4}[a-z]?\))"
)
# What the authors train themselves, but only to compare with: none of it is the paper's recipe.
FOR_COMPARISON = re.compile(
    r"\bbaselines?\b|\bcompetitors?\b|\b(?:as|for|in|by way of) (?:an? |the )?(?:\w+ )?(?:comparisons?|"
    r"alternatives?)\b|"
    r"\bcomparison (?:models?|systems?|runs?)\b|\bcontrol (?:models?|runs?|experiments?|conditions?|systems?|"
    r"polic(?:y|ies))\b|"
    r"\b(?:an?|the|our|these|those|two|three|four|both|all|as)\s(?:[\w-]+ ){0,2}controls?\b"
    r"(?! (?:over|of|tokens?|codes?|flow|plane|tasks?|signals?|theory|vectors?|problems?|units?|rooms?|"
    r"cent(?:er|re)s?))",
    re.IGNORECASE,
)
# The authors name what they compare with; what they say of it next is not the recipe's.
COMPARES = re.compile(
    r"\b(?:we|is|are|was|were) (?:also |then |further |additionally )?(?:compare[sd]?|contrast(?:ed)?)\b[^.;]{0,60}"
    r"\b(?:with|to|against|between)\b",
    re.IGNORECASE,
)
# `We train it for one epoch`: the sentence goes on about what was named before.
THE_SAME = re.compile(
    r"\bwe (?:\w+ )?(?:train|fine-?tune|tune|run|fit|optimi[sz]e|give|let)\w* (?:it|them|these|those|this|both|each)\b",
    re.IGNORECASE,
)
# Somebody else is the subject of a verb, or a value belongs to them.
OTHERS = re.compile(
    r"\bet al\.?[^.;]{0,20}?\s(?:use[sd]?|train(?:ed|s)?|set[s]?|report(?:ed|s)?|recommend(?:ed|s)?|suggest(?:ed|s)?|"
    r"employ(?:ed|s)?|adopt(?:ed|s)?|fine-?tuned?|find|found|propose[sd]?|run|"
    r"ran|appl(?:y|ied)|choose|chose|advise[sd]?|opt|"
    r"sweep|swept|rely|relied|perform(?:ed)?|argue[sd]?|observe[sd]?|start(?:ed)?)\b"
    r"|\b(?:used|reported|recommended|suggested|proposed|adopted|chosen|given|"
    r"described|published|released) (?:by|in) (?:the )?"
    r"(?:original|authors|prior|previous|[A-Z][\w-]+(?: et al| \(|['’]s| paper| report))"
    r"|\bteachers?(?: models?)? (?:is|was|were|are|uses?|used|had|has)\b|\b(?:the |its |their "
    r")?(?:original|official) (?:paper|implementation|work|recipe|authors?|model|"
    r"codebase|setup|setting|hyper\w*|run)\b"
    r"|\b(?:prior|previous|earlier|existing|concurrent|related|other|past) (?:works?|"
    r"papers?|studies|approach(?:es)?|methods?|recipes?|models|efforts|systems|"
    r"research)\b"
    r"|\b(?:they|their|theirs|the authors)\b"
    r"|\b(?:standard|conventional|vanilla|naive) (?:practice|recipes?|SFT|DPO|"
    r"GRPO|RLHF|pipelines?|approach(?:es)?|training|fine-?tuning|setups?)\b"
    r"|\b(?:was|were|been|is|are|who|authors|originally) pre-?trained (?:with|"
    r"at|using|on|for)\b|(?-i:\b[A-Z])[\w.-]*(?: \d[\w.]*)?['’]s (?:own )?(?:[\w.-]+ )?(?:models?|"
    r"recipes?|training|settings?|hyper\w+|rates?|configurations?|values?)\b|"
    r"\b(?:its|their|the model['’]s) authors\b|\bas published\b",
    re.IGNORECASE,
)
# Values tried, varied, supposed or given up.
UNSETTLED = re.compile(
    r"\b(?:sweep(?:s|ing|ed)?|swept|grid|search(?:ed|es|ing)?|tried|try(?:ing)?|"
    r"explor(?:e[sd]?|ing)|candidates? (?:values|set)|"
    r"vary|varie[sd]|varying|ablat\w+|sensitiv\w+|diverg\w+|unstable|instabilit\w+|"
    r"collapse[sd]?|degrad\w+|overfit\w*|worse|"
    r"worsen\w*|hurts?|harm\w*|under-?perform\w*|outperform\w*|"
    r"preliminary|initially (?:used|set|tried|experimented|trained|started)|"
    r"early (?:experiments|runs|attempts|versions?)|would|could|might|if|suppose|"
    r"future|"
    r"(?:increasing|decreasing|reducing|lowering|raising|doubling|halving)(?= (?:the|it|our|its|this|both|β|"
    r"learning|batch|"
    r"rank|epochs|to|from|by|λ|γ|ε))|larger than|smaller than|higher than|lower than|"
    r"robust (?:to|across)|effects? of|impact of|experiment(?:ed|ing)? with|"
    r"as (?:high|low|large|small|much|many|few) as|"
    r"makes|leads? to|causes|forgot|(?:earlier|previous|first|initial) (?:models?|"
    r"tr(?:y|ies)|version|draft|preprint|attempts?|"
    r"experiments?|runs?)|by mistake|erroneous\w*|"
    r"pilot|shows? that|reach(?:es|ed)|achieves|no longer|discard\w*|abandon\w*|"
    r"fail(?:s|ed)?|too (?:low|high|small|large|long|short|slow|few|many|aggressive)|restart\w*|resum(?:ed?|ing)|"
    r"rolled back|ramp(?:s|ed)? up|ranging|(?<!clip )(?<!clipping "
    r")(?<!cliprange )ranges? (?:from|of|between)|"
    r"for example|for instance|e\.g\.|such as|typical(?:ly)?|commonly|common "
    r"practice|usually|often|recommend\w*|default(?: value)?s? (?:of|in|is|was)|"
    r"leave .{0,30}to future|not (?:use|set|apply|exceed)|did not|do not|does "
    r"not|never|cannot|can not|were not|was not|is not|are not)\b",
    re.IGNORECASE,
)
BENIGN = re.compile(
    r"\b(?:to (?:avoid|prevent|reduce|mitigate|limit) (?:overfitting|instabilit\w+|collapse|forgetting|divergence)|"
    r"if not (?:otherwise )?(?:stated|specified|noted|mentioned)|unless (?:otherwise "
    r")?(?:stated|specified|noted|mentioned)(?: otherwise)?|"
    r"(?:longer|shorter|other|remaining) \w+ (?:are|were) (?:discarded|dropped|removed|left out|filtered(?: out)?|"
    r"skipped|"
    r"excluded)|(?:do|did|does) not (?:use|apply|employ|include|tune|change|modify|alter|"
    r"share|update|freeze|perform|mask|pack|add|require|require any)\b[^,;.]*,|"
    r"(?:KL|Kullback-Leibler)[- ]divergence|outperform\w* [^,;.]*,|rejection[- ]sampl\w+|"
    r"beam search|search and rescue)",
    re.IGNORECASE,
)
SETTLED = re.compile(
    r"\b(?:final(?:ly)?|settle[sd]? (?:on|for)|(?:was|is|were|are|be) (?:selected|"
    r"chosen|picked|adopted|fixed)|we (?:therefore |thus |then |finally |ultimately "
    r")?(?:select|chose|choose|pick|picked|selected|adopt|adopted|fix|fixed|"
    r"keep|kept|report)|"
    r"end(?:ed)? up|best (?:value|setting|configuration|results?|performance|"
    r"one|was|is|validation)|work(?:s|ed) best|perform(?:s|ed) best|optimal)\b",
    re.IGNORECASE,
)
# Results told of a setting, and settings told by how they differ: neither is what the model was trained with.
COMPARED = re.compile(
    r"\b(?:more (?:epochs?|steps|updates)|improve[sd]?|ends|costs?|gains?|gained|trails?|lags?|brings?|"
    r"brought|lowers|raises|raised|drops?|dropped|"
    r"lost|loses|inferior|superior|nats|points|attempts?|branch(?:es)?|"
    r"no (?:further |measurable |additional )?(?:benefit|improvement|gain|effect|difference)|"
    r"(?:chang|mak|made|bring|brought|gain)\w* (?:neither|nothing|little|no)|instead|"
    r"(?:shorter|longer|larger|smaller|higher|lower|bigger|second|third|fourth|extra|additional|different|other) "
    r"(?:training |global |peak |effective |maximum |linear )*(?:batch\w*|learning[- ]rates?|rates?|LRs?|epochs?|"
    r"warm-?up|"
    r"weight decay|steps|runs?|schedules?|ranks?|lengths?|contexts?|temperatures?|groups?|β|values?|coefficients?|"
    r"cool-?downs?|dropout)(?! (?:rate )?(?:is|was) (?:used|chosen|selected)))\b",
    re.IGNORECASE,
)
# A sentence that opens so tells an experiment beside the training.
ASIDE = re.compile(
    r"\s*(?:As an? (?:\w+ )?(?:check|test|control|sanity|reference|comparison|baseline|probe|diagnostic)|"
    r"For (?:comparison|reference|the (?:\w+ )?(?:ablations?|sweeps?|baselines?|comparison|proxy|pilot))|"
    r"To (?:test|check|verify|probe|study|see|measure|compare|isolate|assess|understand|examine|rule out)\b|"
    r"To (?:write|generate|create|make|produce|label|filter|score|rank|select|translate|judge|annotate|"
    r"rewrite|synthesi[sz]e|"
    r"estimate|predict|detect|retrieve|propose|pose)\b[^.;]*, we (?:\w+ )?(?:fine-?tune|train)\b|"
    r"In (?:an? |the |our |one )?(?:\w+ )?(?:ablations?|pilots?|sweeps?|preliminary|earlier|early|first|control)\b"
    r"(?! (?:training )?(?:stage|phase|step|act|round)\b)|"
    r"(?:Trained|Fine-?tuned|Tuned|Retrained|Optimi[sz]ed)\b(?! models?\b)[^,;.]*,(?! we\b)|"
    r"An? (?:first|second|third|earlier|control|additional|early) (?!(?:training )?(?:stage|phase|step|act|round)\b))"
)
BESIDE = re.compile(
    r"\b(?:prox(?:y|ies)|pilots?|probes?|probing|toy (?:models?|runs?)|scaled-down|small-scale runs?)\b", re.IGNORECASE
)
# Models that help to make data or to judge; a paper about one names it in its title.
HELPERS = re.compile(
    r"\b(?:filters?|classifiers?|judges?|retrievers?|re-?rankers?|tokeni[sz]ers?|entailment models?|annotators?|"
    r"verifiers?|teachers?|embedders?|detectors?|scorers?|draft models?|simulators?|probes?|parsers?)\b",
    re.IGNORECASE,
)
AUTHORS = re.compile(r"\bet al\b|\b[A-Z][a-z]+ (?:and|&) [A-Z][a-z]+ \(\d{4}\)")
WE_DO = re.compile(
    r"(?<!that )(?<!which )(?<!as )(?<!what )\bwe (?:(?:also|then|therefore|thus|only|simply|instead|"
    r"finally) )?(?:use|set|train|"
    r"adopt|keep|employ|choose|run|take|apply|fix|fine-?tune|tune|optimi[sz]e|minimi[sz]e|clip|warm|sample|draw|share|cut|"
    r"report|follow|start|initiali[sz]e|do|are)\b",
    re.IGNORECASE,
)
FOR_A_PURPOSE = re.compile(
    r"\b(?:models?|networks?|LMs?|LLMs?) (?:that (?:is|are|was|were) )?"
    r"(?:used |trained |employed )?(?:for|to|that|which) "
    r"(?:\w+ ){0,3}?(?:fusion|rescor\w+|filter\w*|scor\w+|judg\w+|label\w*|annotat\w+|rank\w*|embed\w*|"
    r"verif\w+|check\w*)\b",
    re.IGNORECASE,
)
WHOSE = re.compile(r"\b(?:whose|who|which)\b")
ADOPTED = re.compile(
    r"\b(?:keep|use|adopt|take|copy|reuse|follow|share|retain)s?\b[^.;]{0,40}\b(?:settings?|hyper-?parameters|recipe|"
    r"configuration|set-?up|values) of\b",
    re.IGNORECASE,
)
SUBJECT = re.compile(
    r"\s*(?:The )?(?P<name>[A-Z][\w.+-]*(?: \d[\w.]*)?)\s(?:\([^)]*\)\s)?(?:\w+ly )?(?:uses?|used|trains?|trained|"
    r"(?:is|was|were) (?:\w+ )?(?:trained|tuned|fine-?tuned|optimi[sz]ed|run)|applie[sd]|appl(?:y|ies)|sets?|"
    r"adopts?|employs?|"
    r"runs?|ran|reports?|optimi[sz]es|fine-?tunes?|recommends?|takes?|took)\b"
)
# Sections about other things than what the authors trained.
FOREIGN_SECTION = re.compile(
    r"\b(?:related works?|background|preliminar(?:y|ies)|prior work|baselines?|"
    r"ablations?|ablation stud(?:y|ies)|sensitivity|limitations?|future (?:work|"
    r"directions)|"
    r"\A(?:evaluation|decoding|inference|benchmarks?|sampling at|test-time)\b|broader impacts?|rivals?|competing|"
    r"what we (?:varied|tried)|variations?|"
    r"comparisons?\b|compared (?:systems|methods|models|objectives|runs)|\Aalternatives?\b|\balternatives?\W*\Z|"
    r"\A(?:the |our )?(?:\w+ )?controls?(?= (?:runs?|experiments?|models?|systems?|conditions?)\b|\W*\Z)|"
    r"\Aother (?:methods|objectives|approaches|algorithms|systems)|reference (?:systems|points|runs)|ethic\w*|"
    r"acknowledge?ments?|references|case stud(?:y|"
    r"ies)|comparison (?:with|to)|competitors?|negative results|what did(?:n't|"
    r" not) work|unsuccessful attempts|"
    r"failed (?:attempts|experiments)|(?:choosing|choice of|selecting|picking|finding) (?:the |our |an? )?(?:hyper\w*|"
    r"(?:peak )?learning[- ]rates?|batch[- ]sizes?|values)|dead ends|lessons?|"
    r"hyper-?parameter (?:search|sweeps?|sensitivity|"
    r"tuning|selection)|grid search|checklist|effects? of|impact of|analysis "
    r"of|robustness|probing)\b",
    re.IGNORECASE,
)
IN_PASSING = re.compile(
    r"\s*(?:introduction|conclusions?|discussion|motivation|overview|summary|outlook|abstract)\b", re.IGNORECASE
)
# What stands there of settings tells variations and rivals.
OUTCOMES = re.compile(
    r"(?:(?:main|experimental|overall|additional|further|full) )*(?:results?|"
    r"findings|outcomes?|evaluation|analys[ie]s|time|cost|compute time)\b"
    r"(?!.*\b(?:set-?ups?|settings?|details|experiments|training)\b)",
    re.IGNORECASE,
)
EVALUATION = re.compile(
    r"\b(?:evaluat(?:e[sd]?|ion|ing)|at (?:inference|test|evaluation|decoding) "
    r"time|(?:during|for|at) (?:inference|testing|decoding|evaluation)|"
    r"benchmarks?|validation|pass@\d+|maj@\d+|avg@\d+|greedy|judges?|inference|decod(?:e|"
    r"ing)|LM[- ]?Eval\w*|lm-evaluation-harness|test set|scored|scoring|few-shot|"
    r"zero-shot)\b",
    re.IGNORECASE,
)
GENERATION = re.compile(
    r"\b(?:synthetic|critiques?|verdicts?|judge?ments?|paraphras\w+|difficulty|data (?:generation|synthesis|"
    r"construction|collection|curation|creation|"
    r"annotation)|synthesi[sz]\w+|teacher|annotat\w+|label(?:l?ed|l?ing) (?:with|"
    r"by)|"
    r"preference (?:pairs|data) (?:are|is|were|was) (?:built|constructed|created|"
    r"generated|collected)|to (?:build|construct|create|collect) (?:the |our "
    r")?(?:preference|training|SFT|instruction)|"
    r"rejection[- ]sampl\w+|distill(?:ed|ing)? (?:from|traces|data)|GPT-4\w*|"
    r"Claude|Gemini|prompt(?:ed|ing) (?:GPT|Llama|Qwen|DeepSeek|Claude))\b",
    re.IGNORECASE,
)
# Published fine-tunes: their recipes are told for comparison. Base models are no subject of this kind.
RELEASES = re.compile(
    r"\b(?:Alpaca|Vicuna|Zephyr|T[uü]lu|WizardLM|WizardMath|Orca|OpenHermes|"
    r"Starling|OpenChat|Koala|Guanaco|Dolly|LIMA|InstructGPT|ChatGPT|MetaMath|"
    r"OpenThinker\w*|Open-?Reasoner\w*|s1(?:-32B)?|LIMO|DeepSeek-R1(?:-Zero|"
    r"-Distill\S*)?|DeepSeekMath|DeepScaleR|Sky-T1|Bespoke-Stratos|SimpleRL\S*|"
    r"Open-R1|"
    r"OLMo-?2?-Instruct|SmolLM\S*-Instruct|Nemotron\S*|Eurus\S*|Mammoth\S*|Llama-?[23]\S*-(?:Chat|"
    r"Instruct)|Magicoder|OctoCoder|Skywork\S*|Light-R1|QwQ\S*|"
    r"Phi-\d\S*|Claude\S*|GPT-\S+|Gemini\S*)(?![\w-])"
)


METHODS = re.compile(
    r"d?SFT|DPO|IPO|KTO|ORPO|SimPO|APO|CPO|PPO|(?:Dr\.? ?)?GRPO|DAPO|GSPO|RLOO|REINFORCE\S*|RLHF|RLVR|RL|RMs?|RFT|"
    r"CPT|GKD|"
    r"Adam\w*|SGD|Muon|Lion|Q?LoRA|DoRA|DeepSpeed|FSDP|TRL|vLLM|Each|All|Both|Every|It|This|These|Our|We|Its|Stage|Phase|"
    r"Warm-?up|Weight|Gradient|Dropout|Schedule|Optimi[sz]er|Student|Policy|Precision|Pre-?training|Post-?training|Fine-?tuning|Training|Optimi[sz]ation|Runs?|Models?|Adapters?|The|One|Two|Three"
)


WE_TRAIN = re.compile(
    r"\b[Ww]e (?:\w+ )?(?:fine-?tune|train|tune|adapt|start from|initiali[sz]e|pre-?train|post-?train|align) "
    r"((?:[\w-]+(?:\.\d\S*)?,? ){0,4}[\w-]+(?:\.\d\S*)?)"
)
ORDINARY = re.compile(r"[A-Z][a-z]+(?:ing|tions?|ments?|s|ness|ity|ance|ence)")
