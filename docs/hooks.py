"""For MkDocs: a link out of docs/ is shown as the path in the repository, where the file lies."""

import posixpath
import re

LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)#:]+)(?:#[^)]*)?\)")


def on_page_markdown(markdown, page, **_):
    """Return the page's Markdown with ``[text](../path)`` as ``text (`path`)``."""
    folder = posixpath.dirname(page.file.src_uri)

    def shown(match):
        target = posixpath.normpath(posixpath.join("docs", folder, match[2]))
        return match[0] if target.startswith("docs/") else f"{match[1]} (`{target}`)"

    return LINK.sub(shown, markdown)
