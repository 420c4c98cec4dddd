"""A page of this project as a parser sees it."""

from html.parser import HTMLParser


class Reader(HTMLParser):
    """Elements, their attributes, and the text of a page."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes, self.texts = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.texts.append(data)
