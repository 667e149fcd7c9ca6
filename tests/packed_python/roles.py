"""What a byte of the items is, which coder 2 alone wants to know (docs/packed.md section 13)."""

ROLES = (VALUE, NAME, TEXT, ALIAS, NUMBER, TIME, ROUTE, ROW, BASE, LENGTH, HEADER) = range(11)

# Names that are no member's.
ROUTES, QUERY, BODY = 0x4000, 0x4FF0, 0x4FF1
NO_NAME = 0xFFFF


def spelled_name(first):
    """The name of a member that is no row of the table, by its first byte."""
    return 0x8000 | first
