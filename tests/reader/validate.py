#!/usr/bin/env python3
"""Validates records against the schema of the specification.

    validate.py RECORDS.cddl        (from standard input: lines `NAME HEX`)

Needs pycddl from PyPI. Prints what does not fit."""
import sys

import pycddl

rules = open(sys.argv[1]).read()
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
