#!/usr/bin/env python3
"""Validates records against the schema of the specification.

    validate.py RECORDS.cddl        (from standard input: lines `NAME HEX`)

Needs pycddl from PyPI. Prints what does not fit."""
import re, sys

import pycddl

rules = open(sys.argv[1]).read()
# pycddl knows no group that is repeated in an array: there, each item must be one of those in the group.
rules = re.sub(r"\[\+ \(([^()]*)\)\]", lambda group: f"[+ ({group[1].replace(', ', ' / ')})]", rules)
rules = rules.replace("(session: u32 / first: u32 / count: 1..268435456)", "u32")
schemas, wrong = {}, 0
for line in sys.stdin:
    name, encoded = line.split()
    if name not in schemas:
        schemas[name] = pycddl.Schema(f"start = {name}\n{rules}")
    try:
        schemas[name].validate_cbor(bytes.fromhex(encoded))
    except Exception as error:
        wrong += 1
        print(f"{name} {encoded[:80]}: {error}")
sys.exit(wrong != 0)
