"""A process that writes until it is killed: `writing_process.py DIR sync|nosync [TURNS]`.

Prints `durable N` for each turn in the moment it learns that the turn is durable. Turn N appends entry N to
group 1 and to group 2, with the hard state's commit at N: a consistent prefix has the same end in both.
"""

import asyncio
import os
import sys

from cluster.ports import GroupWrite
from cluster.types import Configuration, Entry, HardState
from node.store.environment import Environment
from node.store.log_store import LmdbStore
from node.store.writer import Writer

TURNS_UNDER_WAY = 3
SEGMENT_BYTES = 256 << 10
"""Small, so that the ring of the journal turns, and what it holds is carried into LMDB all the time."""


def turn_data(number: int) -> bytes:
    return b"%d" % number * 20_000


def main() -> None:
    path, sync = sys.argv[1], sys.argv[2] == "sync"
    turns = int(sys.argv[3]) if len(sys.argv) > 3 else 1 << 40
    environment = Environment(
        path, cluster="c", node="n1", sync=sync, map_bytes=1 << 32, segment_bytes=SEGMENT_BYTES
    )
    store = LmdbStore(environment)
    for group in (1, 2):
        store.form(group, Configuration((1,)))
    loop = asyncio.new_event_loop()
    number = durable = store.view(1).last_index()

    def on_durable(reached: int) -> None:
        nonlocal durable
        durable = reached
        os.write(1, b"durable %d\n" % reached)
        submit()

    def on_failure(error: Exception) -> None:
        raise error

    def submit() -> None:
        nonlocal number
        while number < turns and number < durable + TURNS_UNDER_WAY:
            number += 1
            entry = Entry(number, 1, 1, number, turn_data(number))
            writes = [
                GroupWrite(group, entries=[entry], hard_state=HardState(1, 1, number)) for group in (1, 2)
            ]
            store.note(writes)
            writer.submit(number, writes)
        if durable == turns:
            loop.stop()

    writer = Writer(store, loop, on_durable, on_failure)
    submit()
    loop.run_forever()


if __name__ == "__main__":
    main()
