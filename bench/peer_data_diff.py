"""Compares tables with data-diff and says how many rows it found different. Runs under the Python that has it."""

import json
import sys

from data_diff import Algorithm, TableSegment, connect, diff_tables


def main():
    source, target, *tables = sys.argv[1:]
    # It knows one scheme, and no URL without a password; the servers ask for none.
    ends = [connect(url.replace("postgres://", "postgresql://", 1).replace("@", ":none@", 1), 4) for url in (source, target)]
    rows = different = 0
    for entry in tables:
        table, key = entry.split(":")
        columns = columns_of(ends[0], table)
        sides = [segment(end, table, key, columns) for end in ends]
        # It refuses a table without rows.
        count = sides[0].count()
        if count == 0:
            continue
        different += sum(1 for _ in diff_tables(*sides, algorithm=Algorithm.HASHDIFF, threaded=True, max_threadpool_size=4))
        rows += count
    print(json.dumps({"rows": rows, "different": different}))
    for end in ends:
        end.close()


def columns_of(end, table):
    return [name for (name,) in end.query(f"SELECT column_name::text FROM information_schema.columns WHERE table_name = '{table}'", list)]


def segment(end, table, key, columns):
    others = tuple(column for column in columns if column != key)
    return TableSegment(end, (table,), (key,), extra_columns=others).with_schema()


main()
