"""MkDocs hook: equations become MathML when the site is built, so that reading needs no script."""

import html
import re
from typing import Any

from latex2mathml.converter import convert

EQUATION = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)


def on_page_content(content: str, **_: Any) -> str:
    """Replace what pymdownx.arithmatex marked, `$...$` inline and `$$...$$` as a block."""

    def mathml(found: re.Match[str]) -> str:
        block = found[1] == "div"
        made = convert(html.unescape(found[2]).strip(), display="block" if block else "inline")
        return f'<div class="equation">{made}</div>' if block else made

    return EQUATION.sub(mathml, content)
