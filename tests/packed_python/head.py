"""The first byte of a message (docs/packed.md section 3)."""


class Head:
    """What stands before the items."""

    def __init__(self, epoch, has_base, has_status):
        self.epoch = epoch & 7
        self.has_base = has_base
        self.has_status = has_status

    def flags(self):
        return self.has_base << 1 | self.has_status

    def byte(self, coder):
        return coder << 5 | self.epoch << 2 | self.flags()
