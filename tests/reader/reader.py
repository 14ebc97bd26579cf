#!/usr/bin/env python3
"""An independent reader of Strongroom repositories, written from format-spec/ alone.

    reader.py REPOSITORY KEYFILE TENANT list          (or passphrase:FILE instead of KEYFILE)
    reader.py REPOSITORY KEYFILE TENANT SNAPSHOT|latest TARGET [--despite-damage]

Reads a local repository; needs blake3, zstandard, cryptography, pycryptodome and pyrage from PyPI.
It judges little of who may write what: it takes every COMMIT of an actor with a grant to write it,
less those that an entry it can read took away. Everything that it restores is checked: seals, chunk ids, digests."""
import os, stat, struct, sys
from pathlib import Path

import blake3, pyrage, zstandard
from Crypto.Cipher import ChaCha20_Poly1305
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

ENTRY, ANNEX, SEGMENT, SEGMENT_TABLE, CHUNK_TABLE, SNAPSHOT, RING = 1, 2, 3, 4, 5, 6, 7
SCOPE = {ENTRY: 1, ANNEX: 2, SEGMENT: 4, SEGMENT_TABLE: 2, CHUNK_TABLE: 3, SNAPSHOT: 4, RING: 0}
CREATE, GRANT, REVOKE, PUBLISH, COMMIT, RETIRE, UNDELETE = 1, 2, 3, 5, 6, 9, 10
REPACK, REWRITE, HEAL, EPOCH, RESEAL, REPAIR = 17, 19, 21, 23, 37, 39


def fail(message):
    sys.exit(f"reader: {message}")


# ---- conventions.md: the encoding of records


def cbor(b, at=0):
    """Decodes one item of deterministic CBOR; returns it and where it ends. Maps become dicts."""
    major, info = b[at] >> 5, b[at] & 31
    at += 1
    if info < 24:
        n = info
    elif info <= 27:
        width = 1 << (info - 24)
        n = int.from_bytes(b[at:at + width], "big")
        at += width
    else:
        fail("indefinite length")
    if major == 0:
        return n, at
    if major == 1:
        return -1 - n, at
    if major in (2, 3):
        if at + n > len(b):
            fail("a string that is longer than its record")
        return (b[at:at + n] if major == 2 else b[at:at + n].decode()), at + n
    if major == 4:
        items = []
        for _ in range(n):
            item, at = cbor(b, at)
            items.append(item)
        return items, at
    if major == 5:
        pairs = {}
        for _ in range(n):
            key, at = cbor(b, at)
            pairs[key], at = cbor(b, at)
        return pairs, at
    if major == 7 and n in (20, 21):
        return n == 21, at
    fail("an item that records do not have")


def record(b):
    value, end = cbor(b)
    if end != len(b):
        fail("bytes after a record")
    return value


def blob(b):
    n = len(b)
    head = bytes([0x40 | n]) if n < 24 else b"\x58" + bytes([n]) if n < 256 else None
    return (head or (b"\x59" + n.to_bytes(2, "big") if n < 65536 else b"\x5a" + n.to_bytes(4, "big"))) + b


def strip_magic(letter, b):
    if b[:3] != b"SR" + letter:
        fail(f"not an object of kind {letter}")
    if b[3] != 1:
        fail(f"format version {b[3]} is newer than this reader")
        if blake3.blake3(config[4][:12]).digest()[:4] != config[4][12:]:
            fail("config is damaged: the place's id is not what it was")
    return b[4:]


# ---- keys.md: key files


def signing_seed(text):
    line = next(l.strip() for l in text.splitlines() if l.startswith("STRONGROOM-SIGNING-KEY-1"))
    seed, check = bytes.fromhex(line[24:88]), bytes.fromhex(line[88:])
    if check != blake3.blake3(seed, derive_key_context="strongroom v1 checksum of a signing key").digest()[:4]:
        fail("the line of the signing key has a typing error")
    return seed


# ---- sealed.md: the envelope


def aes(key, block):
    e = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
    return e.update(block) + e.finalize()


def xaes_open(key, nonce, data, sealed):
    l = int.from_bytes(aes(key, bytes(16)), "big")
    k1 = ((l << 1) & (2**128 - 1)) ^ (0x87 if l >> 127 else 0)
    k1 = k1.to_bytes(16, "big")
    xor = lambda a, b: bytes(x ^ y for x, y in zip(a, b))
    derived = b"".join(aes(key, xor(bytes([0, i, ord("X"), 0]) + nonce[:12], k1)) for i in (1, 2))
    return AESGCM(derived).decrypt(nonce[12:], sealed, data)


def xchacha_open(key, nonce, data, sealed):
    cipher = ChaCha20_Poly1305.new(key=key, nonce=nonce)
    cipher.update(data)
    return cipher.decrypt_and_verify(sealed[:-16], sealed[-16:])


def unseal(keys, kind, owner, sealed, name=b""):
    """keys: {(scope, source, epoch): key}; name: of a segment or a snapshot"""
    suite, (scope, source, epoch, number) = sealed[0], key_name(sealed)
    if scope != SCOPE[kind] or number:
        fail("sealed with a key for something else, or of a session")
    data = b"strongroom" + bytes([1, kind]) + sealed[1:16] + owner + name
    return {1: xaes_open, 2: xchacha_open}[suite](keys[(scope, source, epoch)], sealed[16:40], data, sealed[40:])


def key_name(sealed):
    """Returns scope, source, epoch and number of the key of an envelope."""
    return struct.unpack("<BIQH", sealed[1:16])


# ---- keys.md: slots and rings


def commitment(key):
    return blake3.blake3(key, derive_key_context="strongroom v1 key commitment").digest()


class Tenant:
    def __init__(self, repository, keyfile, name):
        self.repository = Path(repository)
        config = record(strip_magic(b"c", (self.repository / "config").read_bytes()))
        if config[0] != 1 or config.get(2):
            fail(f"format {config[0]} with features {config.get(2)} is newer than this reader")
        if str(keyfile).startswith("passphrase:"):
            key = self.unwrapped(Path(str(keyfile)[11:]).read_text().rstrip("\r\n"))
        else:
            key = Path(keyfile).read_text()
        if key.startswith("-----BEGIN OPENSSH"):
            identity = pyrage.ssh.Identity.from_buffer(key.encode())
            recipient = " ".join(Path(f"{keyfile}.pub").read_text().split()[:2])
        else:
            signing_seed(key)
            identity = pyrage.x25519.Identity.from_str(next(l.strip() for l in key.splitlines() if l.startswith("AGE-SECRET-KEY-1")))
            recipient = str(identity.to_public())
        tag = blake3.blake3(config[1] + recipient.encode(), derive_key_context="strongroom v1 slot tag").digest()[:8].hex()
        slots = [record(pyrage.decrypt(f.read_bytes(), [identity])) for f in (self.repository / "keys/slot" / tag).glob("*")]
        slots = [s for s in slots if s[2] == name and s[1] == 3] or fail(f"this key opens no tenant {name}")
        if len({s[0] for s in slots}) > 1:
            fail(f"several tenants are called {name}")
        self.owner = slots[0][0]
        self.genesis = {s[5] for s in slots}
        self.path = self.repository / "t" / self.owner.hex()
        # Of several rings that open (a rotation was going on), the one that the ledger names counts.
        opened = [self.ring(f, s[4]) for f in (self.repository / "keys/ring" / self.owner.hex()).glob("*") for s in slots]
        opened = sorted((ring for ring in opened if ring), key=lambda ring: ring[0]) or fail("the rings are missing")
        # Chunk ids by the number of their source; 0 is the tenant's.
        self.ids, self.keys = {}, {}
        for _, ids, keys in opened:
            self.ids, self.keys = ids | self.ids, keys | self.keys
        self.fold()

    def unwrapped(self, passphrase):
        """Returns the text of the key file that a passphrase opens."""
        for path in (self.repository / "keys/identity/passphrase").glob("*"):
            wrapped = record(strip_magic(b"i", path.read_bytes()))
            try:
                return pyrage.passphrase.decrypt(wrapped[2], passphrase).decode()
            except pyrage.DecryptError:
                continue
        fail("this passphrase opens nothing here")

    def ring(self, path, root):
        """Returns the epoch, {source: id key} and {(scope, source, epoch): key} of a ring that this root opens."""
        ring = record(strip_magic(b"k", path.read_bytes()))
        commitments, epoch = ring[0], ring[1]
        if commitments[0] != commitment(root):
            return None
        inner = record(unseal({(0, 0, epoch): root}, RING, self.owner, ring[2]))
        keys = {(scope, 0, e): key for scope in (1, 2, 3, 4) for e, key in zip(inner[scope + 3][::2], inner[scope + 3][1::2])}
        for key, number in ((inner[0], 1), (inner[1], 2), *((keys[(scope, 0, epoch)], scope + 2) for scope in (1, 2, 3, 4))):
            if commitment(key) != commitments[number]:
                fail("a key is not the one that was committed to")
        ids = {0: inner[0]}
        for source in inner.get(8, [])[1::2]:
            ids[source[0]] = source[1]
            keys |= {(4, source[0], e): key for e, key in zip(source[2][::2], source[2][1::2])}
        return epoch, ids, keys

    # ---- ledger.md, as far as a reader needs it

    def fold(self):
        self.rows, self.snapshots, self.grants, self.epoch = {}, {}, {}, 0
        # What is wrong with the history: then nobody knows which snapshot is the newest.
        self.damage, self.repairs, self.bundles = [], {}, {}
        previous, number, junk = bytes(32), 0, 0
        while (stored := self.stored(number)) is not None:
            if (entry := self.next(stored, number, previous, junk)) is not None:
                self.apply(number, entry)
                previous, junk = blake3.blake3(stored).digest(), -1
                if number in self.repairs:
                    self.repairs[number][1] = previous
                    number, previous = self.repairs[number][0], record(entry[7])[1]
            number, junk = number + 1, junk + 1
        if not self.grants:
            fail("the first ledger entry is missing or damaged")
        if junk:
            self.damage.append(f"the last {junk} objects of the ledger are no entries, or damaged")
        self.damage += [f"entry {n} is lost, and its REPAIR is not confirmed" for n, r in self.repairs.items() if not r[2]]
        self.salvage(number - junk)

    def stored(self, number):
        path = self.path / "ledger" / f"{number:016x}"
        if not path.exists():
            return self.bundled(number)
        with open(path, "rb") as f:
            return f.read((1 << 20) + 1)

    def bundled(self, number):
        """Returns what a bundle says of a slot that is empty: nothing if there is none, no bytes for junk."""
        first = number - number % 1000
        if first not in self.bundles:
            path = self.path / "bundle" / f"{first:016x}"
            bundle = record(strip_magic(b"b", path.read_bytes())) if path.exists() else {}
            entries = bundle.get(1, []) if bundle.get(0) == first else []
            self.bundles[first] = dict(zip(entries[::2], entries[1::2]))
        slots = self.bundles[first]
        return slots.get(number, b"") if slots else None

    def salvage(self, end):
        """Takes what is signed behind the place where the ledger ends or breaks off."""
        numbers = sorted(int(p.name, 16) for p in (self.path / "ledger").iterdir() if len(p.name) == 16)
        for number in (n for n in numbers if n >= end):
            if (found := self.signed(self.stored(number), number)) is not None and found[0][3] in self.grants:
                self.damage.append(f"entry {number} follows something that is lost")
                self.apply(number, found[0])

    def signed(self, stored, number):
        """Returns what an actor signed for a slot, and the epoch that it is sealed with."""
        try:
            if len(stored) > 1 << 20:
                return None
            sealed = strip_magic(b"e", stored)
            plain = unseal(self.keys, ENTRY, self.owner, sealed)
            encoded, signature = plain[:-64], plain[-64:]
            entry = record(encoded)
            Ed25519PublicKey.from_public_bytes(entry[3]).verify(signature, b"strongroom ledger entry v1" + self.owner + encoded)
        except (Exception, SystemExit):
            return None
        return (entry, key_name(sealed)[2]) if entry[0] == number else None

    def next(self, stored, number, previous, junk):
        """Returns the entry that follows, or nothing if an object is junk."""
        found = self.signed(stored, number)
        if found and number == 0 and blake3.blake3(stored).digest() not in self.genesis:
            fail("the slot is for another history")
        if found is None or number > 0 and found[0][3] not in self.grants:
            return None
        entry, epoch = found
        follows = entry[1] == previous and entry.get(8, 0) == junk and (8 in entry) == (11 in entry) == (junk > 0)
        try:
            if follows:
                self.annex(entry)
        except (Exception, SystemExit):
            follows = False
        return entry if follows and epoch == self.epoch else None

    def annex(self, entry):
        if 10 in entry:
            stored = (self.path / "annex" / entry[10].hex()).read_bytes()
            if blake3.blake3(stored).digest() != entry[10]:
                fail("an annex is not what was stored")
            return record(unseal(self.keys, ANNEX, self.owner, strip_magic(b"a", stored)))
        return record(entry[9]) if entry.get(9) else {}

    def apply(self, number, entry):
        kind, body = entry[5], record(entry[7])
        if kind == CREATE:
            self.grants = {grant[0]: grant.get(2, []) for grant in body.get(5, [])}
        if kind not in self.grants.get(entry[3], ()):
            return
        if kind == GRANT and entry[3] != body[0] and body[0] in self.grants:
            return
        if kind == GRANT and all(granted in self.grants[entry[3]] for granted in body.get(2, [])):
            self.grants[body[0]] = body.get(2, [])
        if kind == REVOKE:
            self.grants.pop(body[0], None)
        if kind == EPOCH and body[0] == self.epoch + 1:
            self.epoch = body[0]
        if kind == REPAIR and 0 in body:
            self.repairs[number] = [body[0], None, False]
            for said in self.annex(entry).get(4, []):
                self.apply(said[0], {3: said[1], 5: said[2], 7: said.get(3, b""), 9: said.get(4, b"")})
        if kind == REPAIR:
            for confirmed in body.get(2, []):
                self.repairs[confirmed[0]][2] = self.repairs[confirmed[0]][1] == confirmed[1]
            self.grants = {actor: kinds for actor, kinds in self.grants.items() if 0 in body or actor in body.get(3, [])}
        if kind in (PUBLISH, COMMIT, REPACK, REWRITE, HEAL, RESEAL):
            packs = body.get(1, [])
            try:
                rows = self.annex(entry).get(0, [])
            except (Exception, SystemExit):
                rows = []  # The packs' own tables have them.
            for row in rows:
                pack = packs[row[1]]
                session, nonce, ordinal = pack[0]
                folder = ("data", "meta")[pack[1]]
                self.rows[tuple(row[0])] = (self.path / folder / f"{session:012x}-{nonce.hex()}-{ordinal:06x}", row[2], row[3], row[7], row[8], row.get(9, nonce))
        if kind in (COMMIT, REWRITE):
            self.snapshots[body[2][0]] = [number, body[2] | {"session": body[0]}, True]
        if kind == REWRITE and body[3] in self.snapshots:
            self.snapshots[body[3]][2] = False
        if kind in (RETIRE, UNDELETE):
            for snapshot in body.get(0, []):
                if snapshot in self.snapshots:
                    self.snapshots[snapshot][2] = kind == UNDELETE

    def live(self):
        return [snapshot for _, snapshot, alive in sorted(self.snapshots.values(), key=lambda s: s[0]) if alive]

    # ---- pack.md: what lies where, without a ledger

    def tables(self):
        for path in [p for folder in ("data", "meta") for p in (self.path / folder).iterdir() if "#" not in p.name]:
            with open(path, "rb") as f:
                f.seek(-12, os.SEEK_END)
                end = f.tell()
                segments, chunks = struct.unpack("<II", f.read(8))
                f.seek(end - segments - chunks)
                table = record(unseal(self.keys, SEGMENT_TABLE, self.owner, f.read(segments)))
            for row in table.get(0, []):
                self.rows.setdefault(tuple(row[0]), (path, row[2], row[3], row[7], row[8], row.get(9, bytes.fromhex(path.name[13:29]))))

    # ---- segment.md and recipe.md

    def segment(self, id, cache={}):
        if id not in cache:
            if len(cache) > 64:
                cache.clear()
            if id not in self.rows:
                self.tables()
            path, offset, length, sealed_hash, chunks_hash, nonce = self.rows[id]
            with open(path, "rb") as f:
                f.seek(offset)
                sealed = f.read(length)
            if blake3.blake3(sealed).digest() != sealed_hash:
                fail(f"segment {id} is not what its row says")
            plain = unseal(self.keys, SEGMENT, self.owner, sealed, struct.pack("<Q8sI", id[0], nonce, id[1]))
            id_key = self.ids[key_name(sealed)[1]]
            head_length = struct.unpack("<I", plain[:4])[0]
            head, payload = record(plain[4:4 + head_length]), plain[4 + head_length:]
            listed = b"strongroom chunk list v1\xa2\x00" + blob(head[1][0]) + b"\x01" + blob(head[1][1])
            if blake3.blake3(listed, key=id_key).digest() != chunks_hash:
                fail(f"segment {id} does not hold the chunks that its row says")
            lengths = struct.unpack(f"<{len(head[1][0]) // 4}I", head[1][0])
            ids = [head[1][1][i:i + 16] for i in range(0, len(head[1][1]), 16)]
            prefix = b"".join(c for base in head.get(2, []) for c in self.chunks(tuple(base[0]), base.get(1, 0), base[2]))
            if head[0] == 1:
                dictionary = zstandard.ZstdCompressionDict(prefix, dict_type=zstandard.DICT_TYPE_RAWCONTENT) if prefix else None
                payload = zstandard.ZstdDecompressor(dict_data=dictionary).decompress(payload, max_output_size=sum(lengths))
            chunks, at = [], 0
            for length, chunk_id in zip(lengths, ids):
                chunk = payload[at:at + length]
                if blake3.blake3(chunk, key=id_key).digest()[:16] != chunk_id:
                    fail(f"a chunk of segment {id} is not what its id says")
                chunks.append((chunk_id, chunk))
                at += length
            cache[id] = chunks
        return cache[id]

    def chunks(self, id, first, count):
        return [chunk for _, chunk in self.segment(id)[first:first + count]]

    def stream(self, stream):
        """Yields the stream's bytes; checks its length and digest at the end."""
        recipe = stream.get(2, b"")
        for _ in range(stream[3]):
            recipe = b"".join(part for _, part in self.pieces(recipe))
        digest = blake3.blake3(b"strongroom stream digest v1")
        length = zeros = 0
        for id, part in self.pieces(recipe):
            length += len(part)
            if id is None:
                zeros += len(part)
            else:
                if zeros:
                    digest.update(bytes(16) + struct.pack("<Q", zeros))
                zeros = 0
                digest.update(id + struct.pack("<Q", len(part)))
            yield part
        if zeros:
            digest.update(bytes(16) + struct.pack("<Q", zeros))
        if length != stream[0] or digest.digest() != stream[1]:
            fail("a stream is not as long as, or not what, its record says")

    def pieces(self, recipe):
        at, segment, expected = 0, (0, 0), 0

        def number():
            nonlocal at
            value = shift = 0
            while True:
                byte = recipe[at]
                at += 1
                value |= (byte & 127) << shift
                shift += 7
                if byte < 128:
                    return value

        signed = lambda n: (n >> 1) ^ -(n & 1)
        while at < len(recipe):
            tag = recipe[at]
            at += 1
            if tag == 0:
                left = number()
                while left:
                    part = min(left, 1 << 20)
                    yield None, bytes(part)
                    left -= part
                continue
            if tag == 1:
                first = expected + signed(number())
            elif tag == 2:
                segment = (segment[0] + signed(number()), segment[1] + signed(number()))
                first = number()
            else:
                fail(f"a run of the unknown kind {tag}")
            count, size = number(), number()
            expected = first + count
            chunks = self.segment(segment)[first:first + count]
            if sum(len(chunk) for _, chunk in chunks) != size:
                fail("a run is not as long as it says")
            yield from chunks

    # ---- catalogue.md and snapshot.md

    def entries(self, snapshot):
        content = record(unseal(self.keys, SNAPSHOT, self.owner, snapshot[9], struct.pack("<Q8s16s", snapshot["session"], snapshot[10], snapshot[0])))
        buffer = b""
        for part in self.stream(content[1]):
            buffer += part
            while len(buffer) >= 4 and len(buffer) >= 4 + (length := struct.unpack("<I", buffer[:4])[0]):
                yield record(buffer[4:4 + length])
                buffer = buffer[4 + length:]
        if buffer:
            fail("the catalogue ends inside an entry")

    def restore(self, snapshot, target):
        target, folders, linked = os.fsencode(target), [], {}
        for entry in self.entries(snapshot):
            names = entry[0].split(b"/")
            if any(name in (b"", b".", b"..") or b"\0" in name for name in names):
                fail(f"hostile path {entry[0]!r}")
            path = os.path.join(target, entry[0])
            os.makedirs(os.path.dirname(path), exist_ok=True)
            kind, group = entry[1], tuple(entry.get(12, []))
            if group and group in linked:
                os.link(linked[group], path)
                continue
            if kind == 0:
                # What turns out to be damaged gets no name.
                with open(path + b"#unfinished", "xb") as f:
                    for part in self.stream(entry[9]) if 9 in entry else ():
                        f.write(part)
                os.rename(path + b"#unfinished", path)
            elif kind == 1:
                os.makedirs(path, exist_ok=True)
                folders.append((path, entry))
                continue
            elif kind == 2:
                os.symlink(entry[10], path)
            elif kind == 3:
                os.mkfifo(path)
            elif kind == 6:
                os.mknod(path, stat.S_IFSOCK | 0o600)
            elif kind in (4, 5):
                device, of = entry[11], {4: stat.S_IFCHR, 5: stat.S_IFBLK}[kind]
                major = device >> 8 & 0xfff | device >> 32 & 0xfffff000
                minor = device & 0xff | device >> 12 & 0xffffff00
                os.mknod(path, of | 0o600, os.makedev(major, minor))
            else:
                fail(f"{entry[0]!r} is of the unknown type {kind}")
            if group:
                linked[group] = path
            self.metadata(path, entry)
        for path, entry in reversed(folders):
            self.metadata(path, entry)

    @staticmethod
    def metadata(path, entry):
        for name, value in zip(entry.get(13, [])[::2], entry.get(13, [])[1::2]):
            if name.startswith(b"user."):  # Others need rights.
                os.setxattr(path, name, value, follow_symlinks=False)
        if entry[1] != 2:
            os.chmod(path, entry[2])
        time = entry[7] * 10**9 + entry[8]
        os.utime(path, ns=(time, time), follow_symlinks=False)


def main():
    despite_damage = "--despite-damage" in sys.argv
    sys.argv = [word for word in sys.argv if word != "--despite-damage"]
    if len(sys.argv) not in (5, 6):
        fail(__doc__)
    tenant = Tenant(*sys.argv[1:4])
    live = tenant.live()
    for what in tenant.damage:
        print(f"reader: {what}", file=sys.stderr)
    if tenant.damage and sys.argv[4] == "latest" and not despite_damage:
        fail("nobody knows which snapshot is the newest: name one by its id, or say --despite-damage")
    if sys.argv[4] == "list":
        for snapshot in live:
            print(snapshot[0].hex(), snapshot[1], snapshot[4])
        return
    chosen = [s for s in live if s[0].hex().startswith(sys.argv[4])] if sys.argv[4] != "latest" else live[-1:]
    if len(chosen) != 1:
        fail(f"no snapshot, or several, by the name {sys.argv[4]}")
    tenant.restore(chosen[0], sys.argv[5])


main()
