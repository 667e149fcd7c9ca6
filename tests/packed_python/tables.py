"""What both ends hold before they meet: the tables and the dictionary (docs/packed.md section 12)."""

import hashlib
import pathlib
import re

DIRECTORY = pathlib.Path(__file__).resolve().parents[2] / "dictionaries" / "v2"
METHODS = ["GET", "PUT", "POST", "DELETE", "HEAD", "OPTIONS", "PATCH"]

# Where tokens stand in a query (section 9).
QUERY_TOKENS = {"since", "from", "to", "pos", "next_batch", "batch", "at"}


def _rows(name):
    """The rows of a table: all lines but comments and empty ones."""
    text = (DIRECTORY / name).read_text(encoding="utf-8")
    return [line for line in text.split("\n") if line and not line.startswith("#")]


class Route:
    """A method and a path, and where tokens stand in the bodies."""

    def __init__(self, row):
        number, self.method, self.path, answer, request = row.split("\t")
        self.number = int(number)
        self.answer = self._places(answer)
        self.request = self._places(request)
        self.segments = self.path.split("/")[1:]
        self.parameters = [s for s in self.segments if s.startswith("{")]
        parts = (r"([^/]+)" if s.startswith("{") else re.escape(s) for s in self.segments)
        self.pattern = re.compile("/" + "/".join(parts) + r"\Z")

    @staticmethod
    def _places(column):
        return [] if column == "-" else [tuple(place.split(".")) for place in column.split(",")]


KEYS = _rows("keys.tsv")
VALUES = ["" if row == '""' else row for row in _rows("values.tsv")]
ROUTES = [Route(row) for row in _rows("routes.tsv")[1:]]
SECRETS = set(_rows("secrets.tsv"))
SAMPLES = (DIRECTORY / "samples.bin").read_bytes()

KEY_ROWS = {name: row for row, name in enumerate(KEYS)}
VALUE_ROWS = {string: row for row, string in enumerate(VALUES)}


def is_token(places, path):
    """Whether a token stands at `path`, the names from the outermost; `*` is any name."""
    return any(
        len(place) == len(path) and all(part in ("*", name) for part, name in zip(place, path))
        for place in places
    )


def identity():
    """The eight bytes by which a hello names the tables (section 2)."""
    names = ["samples.bin", "keys.tsv", "values.tsv", "routes.tsv", "secrets.tsv"]
    hashes = (hashlib.sha256((DIRECTORY / name).read_bytes()).digest() for name in names)
    return hashlib.sha256(b"".join(hashes)).digest()[:8]
