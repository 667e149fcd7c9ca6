"""Another end of the packed profile, after docs/packed.md: reads tests/vectors/packed and what it writes itself.

    python3 tests/packed_python/main.py

Needs Python 3.11 and nothing else. Takes a minute and a half, most of it to learn coder 2's dictionary; prints how many
messages were right, and stops at the first that is not.
"""

import sys
import time

import random_messages
import replay

SEEDS = 100
LONG_SEED, LONG = 1000, 3000


def main():
    started = time.monotonic()
    passed = replay.check_agreement()
    association, counts = replay.read_exchanges()
    for coder, count in sorted(counts.items()):
        print(f"exchanges, coder {coder}: {count} messages read")
    passed += sum(counts.values())
    messages = replay.read_messages(association)
    print(f"messages by themselves: {messages} read, or refused as they should be")
    written, others = replay.write_exchanges()
    print(f"exchanges: {written} messages written and read, {written - len(others)} the same bytes as the vectors")
    for seed in range(SEEDS):
        conversation(seed, 40)
    conversation(LONG_SEED, LONG)
    print(f"conversations by chance: {SEEDS + 1}, {2 * (40 * SEEDS + LONG)} messages written and read")
    passed += messages + written + SEEDS + 1
    print(f"packed: {passed} passed, 0 failed in {time.monotonic() - started:.0f} s")


def conversation(seed, messages):
    try:
        random_messages.check(seed, messages)
    except Exception as error:
        error.add_note(f"seed {seed}")
        raise


if __name__ == "__main__":
    sys.setrecursionlimit(4000)
    main()
