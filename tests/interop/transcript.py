"""What was said, as a page that a person reads."""

import json


class Transcript:
    def __init__(self, title, name, is_wanted=False):
        # Whether it is written, and pictures with it.
        self.is_wanted = is_wanted
        self.parts = [
            f"# {title}\n\nWritten by `tests/interop/run --transcripts docs/transcripts {name}`: what was sent and what came"
            " back, in full but for what says that it is cut. The homeserver is Synapse 1.163.2, and gone: so are its tokens.\n"
        ]

    def section(self, title):
        self.parts.append(f"\n## {title}\n")

    def block(self, text):
        """What was typed and what came back; blocks in a row are one."""
        end = "```\n"
        start = "\n" if self.parts[-1] == end else "\n```console\n"
        if self.parts[-1] == end:
            self.parts.pop()
        self.parts += [start, text.rstrip() + "\n", end]

    def text(self):
        return "".join(self.parts)


def cut(text, longest=600):
    """The text, or its beginning and how much was left out."""
    if len(text) <= longest:
        return text
    return f"{text[:longest]}…\n(cut: {len(text)} characters in all)"


def compact(value):
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
