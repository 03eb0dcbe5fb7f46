"""What is asked of every page: that its elements are closed and name no address."""

from html.parser import HTMLParser


class Tags(HTMLParser):
    """Collects open elements to prove that every one is closed in order, and every address that an element names."""

    VOID = frozenset({"meta", "link", "br", "img"})

    def __init__(self):
        super().__init__()
        self.open, self.addresses = [], []

    def handle_starttag(self, tag, attrs):
        self.addresses += [value for name, value in attrs if name in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
