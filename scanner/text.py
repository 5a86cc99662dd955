"""Text of strangers on a terminal."""


def printable(text: str) -> str:
    """`text` with its control characters escaped: a terminal obeys none of them."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
