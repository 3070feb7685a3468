"""What a comment becomes on a page: GitHub's Markdown, and nothing that could run, load or reach out of its box."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from bot.practice.pages.markdown import Setting, render, toggled

SHA = "abcdef1234567890abcdef1234567890abcdef12"
SETTING = Setting(repository="acme/lab", commits=frozenset([SHA]))

NASTY = [
    "<script>alert(1)</script>",
    "<scr<script>ipt>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<img src='https://evil.test/pixel.png'>",
    "![x](https://evil.test/pixel.png)",
    "![x](//evil.test/pixel.png)",
    "![x](data:image/svg+xml;base64,PHN2Zy8+)",
    "<svg onload=alert(1)><circle/></svg>",
    "<svg><style><img src=x onerror=alert(1)></style></svg>",
    "<math><mtext></form><form><mglyph><style></math><img src=x onerror=alert(1)>",
    "<iframe src='javascript:alert(1)'></iframe>",
    "<a href='javascript:alert(1)'>x</a>",
    "<a href='jav&#x09;ascript:alert(1)'>x</a>",
    "<a href='\x01javascript:alert(1)'>x</a>",
    "<a href='JaVaScRiPt:alert(1)'>x</a>",
    "<a href='vbscript:x'>x</a>",
    "<a href='data:text/html,<script>alert(1)</script>'>x</a>",
    "[x](javascript:alert(1))",
    "[x](<java\nscript:alert(1)>)",
    "<a href=\"https://ok.test\" onclick='alert(1)' style='position:fixed;inset:0'>x</a>",
    "<div style='position:fixed;inset:0;background:red'>x</div>",
    "<style>body{display:none}</style>",
    "<link rel=stylesheet href=https://evil.test/x.css>",
    "<meta http-equiv=refresh content='0;url=https://evil.test'>",
    "<base href=https://evil.test>",
    "<form action=https://evil.test><input name=csrf><button>go</button></form>",
    "<textarea><script>alert(1)</script>",
    "<noscript><p title='</noscript><img src=x onerror=alert(1)>'></noscript>",
    "<template><img src=x onerror=alert(1)></template>",
    "<video src=https://evil.test/v onerror=alert(1)></video>",
    "<object data=https://evil.test></object><embed src=https://evil.test>",
    "<p title='\"><script>alert(1)</script>'>x</p>",
    '<div title="\n```py\nx = 1 #"><script>alert(1)</script>\n```\n">',
    "</div></article></main><h1>outside</h1>",
    "<!-- <script>alert(1)</script> --><b>x",
    "<!-- unfinished <img src=x onerror=alert(1)>",
    "<![CDATA[<script>alert(1)</script>]]>",
    "<?php echo '<script>alert(1)</script>' ?>",
    "<img src='/acme/lab/raw/main/a.png' onerror=alert(1) srcset='https://evil.test/x 1x'>",
    '```mermaid\nflowchart TD\n A["<img src=x onerror=alert(1)>"] --> B["</svg><script>alert(1)</script>"]\n```',
    '```mermaid\nxychart-beta\n title "</text><script>alert(1)</script>"\n line [1,2]\n```',
    "```mermaid\npie <script>alert(1)</script>\n```",
    "```suggestion\n</td></table><script>alert(1)</script>\n```",
    '```"><script>alert(1)</script>\nx\n```',
    '- [ ] "><script>alert(1)</script>',
    "> [!NOTE]\n> <script>alert(1)</script>",
    '@ada"><script>alert(1)</script> https://x.test/"onmouseover=alert(1)',
    "# <img src=x onerror=alert(1)>",
    "| <script>alert(1)</script> |\n|---|\n| <img src=x onerror=alert(1)> |",
    "<details open ontoggle=alert(1)><summary>x</summary></details>",
    "[^1]\n\n[^1]: <script>alert(1)</script>",
]


class Inspector(HTMLParser):
    """Collects what a browser would be asked to do, and whether every tag is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("br", "img", "hr", "wbr"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))  # in SVG, which is written as XML

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes what the text did not open"
        assert self.open.pop() == tag


def inspected(html: str) -> Inspector:
    inspector = Inspector()
    inspector.feed(html)
    inspector.close()
    return inspector


@pytest.mark.parametrize("text", NASTY)
def test_nasty_markdown_runs_loads_and_breaks_nothing(text: str) -> None:
    page = inspected(render(text, Setting(repository="acme/lab", tick_form="f")))
    assert page.open == []
    for tag, attributes in page.tags:
        assert tag not in {
            "script",
            "style",
            "iframe",
            "object",
            "embed",
            "link",
            "meta",
            "base",
            "form",
            "input",
            "video",
        }
        assert not [name for name in attributes if name.startswith("on") or name in ("style", "srcset", "formaction")]
        assert not re.match(r"\s*(javascript|data|vbscript):", attributes.get("href") or "", re.IGNORECASE)
        assert (attributes.get("src") or "/").startswith("/")


def test_the_corpus_inspector_notices_a_script() -> None:
    assert any(tag == "script" for tag, _ in inspected("<p><script>1</script></p>").tags)


def test_hidden_comment_leaves_no_trace() -> None:
    html = render("<!-- postdoc:acme/lab#1/contract -->\nThe goal.", SETTING)
    assert "postdoc" not in html
    assert "The goal." in html


def test_unfinished_comment_hides_the_rest() -> None:
    assert "secret" not in render("shown\n\n<!-- secret", SETTING)


def test_slot_words_of_one_text_mean_nothing_in_another() -> None:
    guessed = "slot" + "0" * 32 + "x000000"
    assert guessed in render(f"`code` {guessed}", SETTING)


def test_safe_subset_stays() -> None:
    html = render("<details><summary>More</summary>\n\nH<sub>2</sub>O <kbd>Ctrl</kbd><br>x\n\n</details>", SETTING)
    for part in ("<details>", "<summary>More</summary>", "<sub>2</sub>", "<kbd>Ctrl</kbd>", "<br>"):
        assert part in html


def test_table_keeps_alignment_without_style() -> None:
    html = render("| a | b |\n|---|--:|\n| 1 | 2 |", SETTING)
    assert '<td align="right">2</td>' in html
    assert "style" not in html


def test_line_ends_break_in_comments_only() -> None:
    assert "<br>" in render("a\nb", SETTING)
    assert "<br>" not in render("a\nb", Setting(repository="acme/lab", hard_breaks=False))


def test_references_become_links() -> None:
    html = render(f"see #12, @ada and {SHA[:9]} at https://x.test/a_(b)). `#13` [#14](/x)", SETTING)
    assert '<a href="/acme/lab/issues/12">#12</a>' in html
    assert '<span class="mention">@ada</span>' in html
    assert f'href="/acme/lab/commit/{SHA}"' in html
    assert 'href="https://x.test/a_(b)"' in html
    assert "issues/13" not in html
    assert "issues/14" not in html


def test_unknown_hash_stays_text() -> None:
    assert "/commit/" not in render("goal hash 0123abcd", SETTING)


def test_relative_links_and_images_lead_into_the_repository() -> None:
    setting = Setting("acme/lab", ref="main", folder="docs", hard_breaks=False)
    html = render("[x](../data/README.md#rows) ![p](plot.png)", setting)
    assert 'href="/acme/lab/blob/main/data/README.md#rows"' in html
    assert 'src="/acme/lab/raw/main/docs/plot.png"' in html


def test_alert_gets_its_title() -> None:
    html = render("> [!WARNING]\n> Mind the budget.", SETTING)
    assert 'class="alert alert-warning">Warning</span>' in html
    assert "[!WARNING]" not in html
    assert "Mind the budget." in html


TASKS = "Do:\n\n- [ ] Stop\n- [x] Go **on**\r\n1. [ ] Stop\n\n```\n- [ ] Stop\n```\n"


def values(text: str) -> list[str]:
    return re.findall(r'name="task" value="([^"]*)"', render(text, Setting(tick_form="f")))


def test_each_box_changes_its_own_line() -> None:
    first, second, third = values(TASKS)
    assert toggled(TASKS, first) == TASKS.replace("- [ ] Stop", "- [x] Stop", 1)
    assert toggled(TASKS, second) == TASKS.replace("- [x] Go", "- [ ] Go")
    assert toggled(TASKS, third) == TASKS.replace("1. [ ] Stop", "1. [x] Stop")


def test_box_is_found_by_its_words_after_an_edit() -> None:
    stop = values("- [ ] Stop\n")[0]
    assert toggled("New first line.\n\n- [ ] +1 h\n- [ ] Stop\n", stop) == "New first line.\n\n- [ ] +1 h\n- [x] Stop\n"


@pytest.mark.parametrize("now", ["- [x] Stop\n", "- [ ] Something else\n", ""])
def test_box_that_changed_meanwhile_is_left_alone(now: str) -> None:
    assert toggled(now, values("- [ ] Stop\n")[0]) is None


@pytest.mark.parametrize("task", ["", "x", "::", "1:2:3:4", "-1::x"])
def test_box_with_nonsense_is_left_alone(task: str) -> None:
    assert toggled(TASKS, task) is None


def test_boxes_are_not_buttons_for_strangers() -> None:
    html = render("- [ ] Stop", Setting())
    assert "<button" not in html
    assert 'role="checkbox" aria-checked="false"' in html


def test_suggestion_shows_what_it_replaces() -> None:
    html = render("```suggestion\nlearning_rate: 1.0e-4\n```", Setting(suggestion_lines=("learning_rate: 2.0e-5",)))
    assert '<tr class="del"><td class="sign">-</td><td class="text">learning_rate: 2.0e-5</td></tr>' in html
    assert '<tr class="add"><td class="sign">+</td><td class="text">learning_rate: 1.0e-4</td></tr>' in html


def test_deep_nesting_ends() -> None:
    assert render("> " * 3000 + "x", SETTING)
    assert render("<div>" * 5000, SETTING).count("</div>") == 5000
