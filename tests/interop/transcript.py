"""What was said, as a page that a person reads."""

import json


class Transcript:
    def __init__(self, title, name):
        self.parts = [
            f"# {title}\n\nWritten by `tests/interop/run --transcripts docs/transcripts {name}`: what was sent and what came"
            " back, in full but for the lines that say they are cut. The homeserver is Synapse 1.163.2.\n"
        ]

    def section(self, title):
        self.parts.append(f"\n## {title}\n\n")

    def block(self, text):
        self.parts.append(f"```console\n{text.rstrip()}\n```\n")

    def text(self):
        return "".join(self.parts)


def cut(text, longest=600):
    """The text, or its beginning and how much was left out."""
    if len(text) <= longest:
        return text
    return f"{text[:longest]}…\n(cut: {len(text)} characters in all)"


def compact(value):
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
