//! The one encoding of stored records: deterministic CBOR (RFC 8949 section 4.2), maps with
//! ascending integer keys. Fields that this program does not know survive a round trip.
//!
//! Chapter: `format-spec/conventions.md`.

use crate::id::*;
use minicbor::{Decoder, Encoder};
use std::collections::BTreeMap;

/// Stored bytes that are not what the format says. Never says anything about secret content.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed {what}: {why}")]
pub struct Malformed {
    pub what: &'static str,
    pub why: String,
}

/// Makes a `Malformed`.
pub fn malformed(what: &'static str, why: impl ToString) -> Malformed {
    Malformed { what, why: why.to_string() }
}

/// Fields of a record that a newer program wrote: key to encoded value, kept as they are.
pub type Unknown = BTreeMap<u64, Vec<u8>>;

/// Writes records; cannot fail.
pub struct Writer(Encoder<Vec<u8>>);

macro_rules! write_with {
    ($($name:ident($type:ty)),*) => { $(
        pub fn $name(&mut self, value: $type) {
            let _infallible = self.0.$name(value);
        }
    )* };
}

impl Writer {
    write_with!(u64(u64), i64(i64), bool(bool), bytes(&[u8]), str(&str), array(u64), map(u64));

    fn raw(&mut self, encoded: &[u8]) {
        self.0.writer_mut().extend_from_slice(encoded);
    }
}

/// Reads records; bounded by its input and never trusts a claimed length.
pub struct Reader<'a>(Decoder<'a>);

impl<'a> Reader<'a> {
    /// Starts at the first byte.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(Decoder::new(bytes))
    }
    /// Says how many bytes were read.
    pub fn position(&self) -> usize {
        self.0.position()
    }
    fn map(&mut self) -> Result<u64, Malformed> {
        self.0.map().map_err(bad)?.ok_or_else(|| malformed("record", "indefinite length"))
    }
    /// Reads a byte string where it lies.
    pub fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        self.0.bytes().map_err(bad)
    }
    fn array(&mut self) -> Result<u64, Malformed> {
        self.0.array().map_err(bad)?.ok_or_else(|| malformed("record", "indefinite length"))
    }
    fn raw(&mut self) -> Result<Vec<u8>, Malformed> {
        let start = self.0.position();
        self.0.skip().map_err(bad)?;
        Ok(self.0.input()[start..self.0.position()].to_vec())
    }
}

fn bad(error: minicbor::decode::Error) -> Malformed {
    malformed("record", error)
}

/// A value that has one encoding.
pub trait Field: Sized {
    /// Appends the encoding.
    fn put(&self, out: &mut Writer);
    /// Reads one value.
    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed>;
    /// Says whether the value is written at all; absent values are left out of their record.
    fn is_present(&self) -> bool {
        true
    }
    /// Stands for an absent field, if that is allowed.
    fn absent() -> Option<Self> {
        None
    }
}

/// Encodes a record.
pub fn encode<T: Field>(value: &T) -> Vec<u8> {
    let mut out = Writer(Encoder::new(Vec::with_capacity(256)));
    value.put(&mut out);
    out.0.into_writer()
}

/// Encodes a record that holds secrets: nothing of it stays behind in memory.
pub fn encode_secret<T: Field>(value: &T) -> zeroize::Zeroizing<Vec<u8>> {
    // Room for the keys of thousands of epochs.
    encode_in(1 << 20, value)
}

/// A vector that grows leaves copies: this one has so much room from the start.
fn encode_in<T: Field>(room_bytes: usize, value: &T) -> zeroize::Zeroizing<Vec<u8>> {
    let mut out = Writer(Encoder::new(Vec::with_capacity(room_bytes)));
    value.put(&mut out);
    zeroize::Zeroizing::new(out.0.into_writer())
}

/// Decodes a record that holds secrets, and fills `bytes` exactly.
pub fn decode_secret<T: Field>(bytes: &[u8]) -> Result<T, Malformed> {
    let mut reader = Reader::new(bytes);
    let value = T::take(&mut reader)?;
    // The deterministic encoding is the shortest.
    if reader.position() != bytes.len() || *encode_in(bytes.len(), &value) != bytes {
        return Err(malformed("record", "bytes after its end, or not in the deterministic encoding"));
    }
    Ok(value)
}

/// Decodes a record that fills `bytes` exactly and is encoded as this program would encode it.
pub fn decode<T: Field>(bytes: &[u8]) -> Result<T, Malformed> {
    let mut reader = Reader::new(bytes);
    let value = T::take(&mut reader)?;
    if reader.position() != bytes.len() {
        return Err(malformed("record", "bytes after its end"));
    }
    if encode(&value) != bytes {
        return Err(malformed("record", "not in the deterministic encoding"));
    }
    Ok(value)
}

macro_rules! integer {
    ($($type:ty),*) => { $(
        impl Field for $type {
            fn put(&self, out: &mut Writer) {
                out.u64(u64::from(*self));
            }
            fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
                let value = from.0.u64().map_err(bad)?;
                Self::try_from(value).map_err(|_| malformed("record", "integer out of range"))
            }
        }
    )* };
}
integer!(u8, u16, u32, u64);

impl Field for i64 {
    fn put(&self, out: &mut Writer) {
        out.i64(*self);
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        from.0.i64().map_err(bad)
    }
}

/// A flag; only `true` is written.
impl Field for bool {
    fn put(&self, out: &mut Writer) {
        out.bool(*self);
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        from.0.bool().map_err(bad)
    }
    fn is_present(&self) -> bool {
        *self
    }
    fn absent() -> Option<Self> {
        Some(false)
    }
}

/// A number that is left out of its record if it is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Count(pub u64);

impl Field for Count {
    fn put(&self, out: &mut Writer) {
        out.u64(self.0);
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        u64::take(from).map(Self)
    }
    fn is_present(&self) -> bool {
        self.0 > 0
    }
    fn absent() -> Option<Self> {
        Some(Self(0))
    }
}

/// A text in UTF-8.
impl Field for String {
    fn put(&self, out: &mut Writer) {
        out.str(self);
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        from.0.str().map(str::to_owned).map_err(bad)
    }
}

/// A byte string of any length.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Blob(pub Vec<u8>);

impl Field for Blob {
    fn put(&self, out: &mut Writer) {
        out.bytes(&self.0);
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        from.0.bytes().map(|bytes| Self(bytes.to_vec())).map_err(bad)
    }
    fn is_present(&self) -> bool {
        !self.0.is_empty()
    }
    fn absent() -> Option<Self> {
        Some(Self::default())
    }
}

impl<const N: usize> Field for [u8; N] {
    fn put(&self, out: &mut Writer) {
        out.bytes(self);
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let bytes = from.0.bytes().map_err(bad)?;
        Self::try_from(bytes).map_err(|_| malformed("record", format!("{N} bytes expected, {} found", bytes.len())))
    }
}

macro_rules! id_field {
    ($($name:ident),*) => { $(
        impl Field for $name {
            fn put(&self, out: &mut Writer) {
                self.0.put(out);
            }
            fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
                Ok(Self(Field::take(from)?))
            }
        }
    )* };
}
id_field!(ScopeId, ChunkId, SnapshotId, ActorId, Hash, Nonce, PlaceId, ErasureId);

impl Field for SegmentId {
    fn put(&self, out: &mut Writer) {
        out.array(2);
        out.u64(self.session);
        out.u64(u64::from(self.ordinal));
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        fixed_array(from, 2)?;
        Ok(Self { session: Field::take(from)?, ordinal: Field::take(from)? })
    }
}

impl Field for PackId {
    fn put(&self, out: &mut Writer) {
        out.array(3);
        out.u64(self.session);
        self.nonce.put(out);
        out.u64(u64::from(self.ordinal));
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        fixed_array(from, 3)?;
        Ok(Self { session: Field::take(from)?, nonce: Field::take(from)?, ordinal: Field::take(from)? })
    }
}

fn fixed_array(from: &mut Reader<'_>, expected: u64) -> Result<(), Malformed> {
    match from.array()? {
        length if length == expected => Ok(()),
        length => Err(malformed("record", format!("{expected} items expected, {length} found"))),
    }
}

impl<T: Field> Field for Option<T> {
    fn put(&self, out: &mut Writer) {
        if let Some(value) = self {
            value.put(out);
        }
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        T::take(from).map(Some)
    }
    fn is_present(&self) -> bool {
        self.is_some()
    }
    fn absent() -> Option<Self> {
        Some(None)
    }
}

impl<T: Field> Field for Vec<T> {
    fn put(&self, out: &mut Writer) {
        out.array(self.len() as u64);
        self.iter().for_each(|value| value.put(out));
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let length = from.array()?;
        let mut values = Self::new();
        for _ in 0..length {
            values.push(T::take(from)?);
        }
        Ok(values)
    }
    fn is_present(&self) -> bool {
        !self.is_empty()
    }
    fn absent() -> Option<Self> {
        Some(Self::new())
    }
}

/// A map as an array of pairs with ascending keys.
impl<K: Field + Ord, V: Field> Field for BTreeMap<K, V> {
    fn put(&self, out: &mut Writer) {
        out.array(self.len() as u64 * 2);
        for (key, value) in self {
            key.put(out);
            value.put(out);
        }
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let length = from.array()?;
        let mut map = Self::new();
        if length % 2 != 0 {
            return Err(malformed("record", "a key without a value"));
        }
        for _ in 0..length / 2 {
            let (key, value) = (K::take(from)?, V::take(from)?);
            if map.last_key_value().is_some_and(|(last, _)| *last >= key) {
                return Err(malformed("record", "keys out of order"));
            }
            map.insert(key, value);
        }
        Ok(map)
    }
    fn is_present(&self) -> bool {
        !self.is_empty()
    }
    fn absent() -> Option<Self> {
        Some(Self::new())
    }
}

/// Reads the map head and then calls `field(key, reader)` for each pair; it says whether it knew
/// the key. What it did not know is returned.
pub fn take_record(
    from: &mut Reader<'_>,
    mut field: impl FnMut(u64, &mut Reader<'_>) -> Result<bool, Malformed>,
) -> Result<Unknown, Malformed> {
    let mut unknown = Unknown::new();
    let mut last = None;
    for _ in 0..from.map()? {
        let key = u64::take(from)?;
        if last.is_some_and(|last| last >= key) {
            return Err(malformed("record", "fields out of order"));
        }
        last = Some(key);
        if !field(key, from)? {
            let raw = from.raw()?;
            unknown.insert(key, raw);
        }
    }
    Ok(unknown)
}

/// Writes the unknown fields with keys in `range`, each in its place.
pub fn put_unknown(out: &mut Writer, unknown: &Unknown, range: std::ops::Range<u64>) {
    for (key, raw) in unknown.range(range) {
        out.u64(*key);
        out.raw(raw);
    }
}

/// Defines a record: a struct whose fields have numbers, ascending.
macro_rules! record {
    ($($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $key:literal $field:ident: $type:ty,)* })*) => { $(
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name {
            $($(#[$field_meta])* pub $field: $type,)*
            /// Fields that a newer program wrote.
            pub unknown: $crate::format::record::Unknown,
        }
        impl $crate::format::record::Field for $name {
            fn put(&self, out: &mut $crate::format::record::Writer) {
                use $crate::format::record::put_unknown;
                let present = 0u64 $(+ u64::from(self.$field.is_present()))* + self.unknown.len() as u64;
                out.map(present);
                let mut next = 0u64;
                $(
                    put_unknown(out, &self.unknown, next..$key);
                    next = $key + 1;
                    if self.$field.is_present() {
                        out.u64($key);
                        self.$field.put(out);
                    }
                )*
                put_unknown(out, &self.unknown, next..u64::MAX);
            }
            fn take(from: &mut $crate::format::record::Reader<'_>) -> Result<Self, $crate::format::record::Malformed> {
                use $crate::format::record::{Field, malformed, take_record};
                $(let mut $field: Option<$type> = None;)*
                let unknown = take_record(from, |key, from| {
                    match key {
                        $($key => $field = Some(<$type as Field>::take(from)?),)*
                        _ => return Ok(false),
                    }
                    Ok(true)
                })?;
                Ok(Self {
                    $($field: match $field.or_else(<$type as Field>::absent) {
                        Some(value) => value,
                        None => return Err(malformed(stringify!($name), concat!("field `", stringify!($field), "` is missing"))),
                    },)*
                    unknown,
                })
            }
        }
    )* };
}
pub(crate) use record;
