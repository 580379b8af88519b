"""README's Python runs and prints what README says it prints."""

import contextlib
import io
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_ten_lines_print_what_readme_says() -> None:
    code, output = re.search(r"```python\n(.*?)```\n\n```text\n(.*?)```", README, re.S).groups()
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "README.md", "exec"), {"__name__": "readme"})
    assert printed.getvalue() == output


def test_who_asks_why_a_gateway_was_pushed_is_led_to_the_rules() -> None:
    named = re.findall(r"`(pushsim/[\w/]+(?:\.py|/))`", README)
    assert "pushsim/dependencies.py" in named
    assert all((ROOT / path).exists() for path in named)
    assert "Why was this gateway pushed?" in README
    assert "Why was this gateway pushed?" in (ROOT / "pushsim/dependencies.py").read_text().split("from __future__")[0]
