"""Why a message cannot be read (docs/packed.md section 14)."""


class DecodeError(Exception):
    """The peer's message is refused whole; `name` is the error's in section 14."""

    def __init__(self, name, detail=""):
        super().__init__(f"{name}: {detail}" if detail else name)
        self.name = name
