"""The page of a text in Markdown, as studies and exported networks have it."""

import shlex
import subprocess

import pytest

from wsrnas.report.markdown_page import sections_of, write_text_page
from wsrnas.report.texts import command_text, over_in_words
from wsrnas.report.tiles import Tile

TEXT = """---
license: mit
---
# A study

Read `this` & **that**: [there](https://example.org/a).

**Note: <b>few</b> images.**

## Numbers

| name | value |
| --- | ---: |
| a \\| b | `1.0` |

![A figure](figures/one.svg)

![Another](figures/none.svg)

- one
- two

<details><summary>All &amp; more</summary>

```bash
run   <this>

then
```

</details>
"""


def test_a_text_becomes_sections(tmp_path):
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "one.svg").write_text('<svg viewBox="0 0 30 30" width="30pt"><path d="M0"/></svg>')
    (first, summary), (second, parts) = sections_of(TEXT, tmp_path)
    assert (first, second) == ("Summary", "Numbers")
    assert summary == ['<p>Read <code>this</code> &amp; <strong>that</strong>: <a href="https://example.org/a">there</a>.'
                       "</p>", '<p class="warning">Note: &lt;b&gt;few&lt;/b&gt; images.</p>']
    text = "".join(parts)
    assert '<th scope="row">a | b</th><td class="n">1.0</td>' in text and "<ul><li>one</li><li>two</li></ul>" in text
    assert "<figcaption>A figure</figcaption>" in text and "The figure none.svg is missing." in text
    assert "<details><summary>All &amp; more</summary><pre>run   &lt;this&gt;\n\nthen</pre></details>" in text


def test_the_page_holds_its_name_and_key_numbers_and_loads_nothing(tmp_path):
    (tmp_path / "study").mkdir()
    page = write_text_page(tmp_path / "study", "mine", "study", TEXT, [Tile("networks", "3", "of two kinds")])
    text = page.read_text()
    assert page == tmp_path / "study" / "report.html" and list(page.parent.iterdir()) == [page]
    assert "<h1>mine</h1>" in text and ">3</span>" in text and "license" not in text and "src=" not in text


def test_flags_and_names_with_hyphens_are_not_broken_and_minus_signs_are_those_of_print(tmp_path):
    text = ("Run `a --batch_size 3` or --seed.\n\n```\npython -m a --seed 1\n```\n\n"
            "| of PGD-20 |\n|---|\n| -3 [-4.5, 2] |\n")
    shown = "".join(part for _, parts in sections_of(text, tmp_path) for part in parts)
    assert shown.count('<span class="flag">--') == 3 and '<span class="flag">PGD-20</span>' in shown
    assert "−3 [−4.5, 2]" in shown


def test_a_command_names_its_module():
    assert command_text(["/x/retrain/compare.py", "a b"]) == "python -m retrain.compare 'a b'"
    assert command_text(["/x/retrain/vulnerability/__main__.py"]) == "python -m retrain.vulnerability"
    words = ["--arch", "|none~0|+|none~0|none~1|", "--name", "it's a", "--data", "/d/$HOME/a;b", "--note", ""]
    shown = command_text(["/x/retrain/train_cifar.py", *words])
    assert shlex.split(shown) == ["python", "-m", "retrain.train_cifar", *words]
    assert subprocess.run(["bash", "-c", f"printf '%s\\n' {shown}"], capture_output=True, text=True,
                          check=True).stdout.split("\n")[3:-1] == words


@pytest.mark.parametrize(("text", "shown"), [
    ("`a**b` x `c**d`", "<p><code>a**b</code> x <code>c**d</code></p>"),
    ("**bold** and **more**", "<p><strong>bold</strong> and <strong>more</strong></p>"),
    ("**see `a**b`!**", '<p class="warning">see <code>a**b</code>!</p>'),
    ("[`a`](https://x.org/)", '<p><a href="https://x.org/"><code>a</code></a></p>'),
    ("| alone |", "<p>| alone |</p>")])
def test_marks_in_code_are_no_marks(text, shown, tmp_path):
    assert "".join(part for _, parts in sections_of(text, tmp_path) for part in parts) == shown


def test_an_attack_at_several_strengths_is_named_once():
    assert over_in_words(["PGD-20  eps 0.1", "PGD-20  eps 0.2"]) == "PGD-20 at 2 strengths"
    assert over_in_words(["PGD-20  eps 0.1", "FGSM  eps 0.1"]) == "2 attacks"
