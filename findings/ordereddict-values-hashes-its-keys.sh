#!/usr/bin/env bash
# The guess:
#   list(table.values()) copies a table in one step: with the GIL no other thread can come in
#   between, and a change during an iteration raises RuntimeError. So it is with a dict.
# The behaviour:
#   The iterator of an OrderedDict looks each key up again, also for values(). That hashes the key,
#   which runs __hash__ if it is Python code: another thread may run then, and change the table. The
#   iteration then raises KeyError, and not RuntimeError.
# Seen with:
#   CPython 3.11.7 and 3.13.0
# Output:
#   dict: 0 hashes, 3 values
#   OrderedDict: 6 hashes, 3 values
#   OrderedDict, changed meanwhile: KeyError
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

cat >see.py <<'END'
from collections import OrderedDict


class Name:
    """A key whose hash is Python code, so that other threads may run meanwhile."""

    hashes = 0
    on_hash = None

    def __init__(self, text):
        self.text = text

    def __eq__(self, other):
        return self.text == other.text

    def __hash__(self):
        Name.hashes += 1
        if Name.on_hash is not None:
            Name.on_hash(self)
        return hash(self.text)


for kind in (dict, OrderedDict):
    table = kind.fromkeys(map(Name, ("a", "b", "c")), 1)
    Name.hashes = 0
    values = list(table.values())
    print(f"{kind.__name__}: {Name.hashes} hashes, {len(values)} values")


def delete(name):
    """Do what another thread might do just now."""
    Name.on_hash = None
    del table[name]


Name.on_hash = delete
try:
    print("OrderedDict, changed meanwhile:", list(table.values()))
except Exception as error:
    print("OrderedDict, changed meanwhile:", type(error).__name__)
END

cat >expected <<'END'
dict: 0 hashes, 3 values
OrderedDict: 6 hashes, 3 values
OrderedDict, changed meanwhile: KeyError
END
python3 see.py | tee seen
diff expected seen
echo "as described"
