//! Segments: chunks that follow each other become one compressed, sealed thing; and back.

use super::{
    digest::{ChunkHasher, hash},
    seal::{Binding, Key, OpenError, open, seal},
};
use crate::{
    format::{
        decode, encode,
        record::malformed,
        sealed::{Header, KeyName, Kind, Suite},
        segment::{BASE_RUNS_MAX, BaseRun, ChunkList, Codec, PREFIX_BYTES_MAX, SegmentHead},
    },
    id::{ChunkId, Hash, ScopeId, SegmentName},
};
use crc_fast::{CrcAlgorithm, Digest};
use zstd::zstd_safe::{CCtx, CParameter, DCtx, compress_bound};

/// The zstd level of data and of metadata.
pub const LEVEL: i32 = 3;

/// A delta is kept if it has at most this many percent of the bytes that the segment has without bases.
const DELTA_PERCENT_MAX: usize = 75;
/// Below this many percent of the plain bytes a delta is kept without looking for the other size.
const DELTA_PERCENT_SURE: usize = 12;

/// Chunks that wait to be sealed together.
#[derive(Debug, Clone)]
pub struct SegmentBuilder {
    pub chunks: ChunkList,
    pub bytes: Vec<u8>,
    /// Over the chunks as they were when their ids were computed: `verify` compares.
    checksum: Digest,
    /// What may stand for the chunks' earlier versions.
    pub bases: Vec<BaseRun>,
    /// Bytes of chunks that are stored elsewhere already.
    pub repeated_bytes: usize,
}

impl Default for SegmentBuilder {
    fn default() -> Self {
        let (chunks, bytes, bases) = (ChunkList::default(), Vec::new(), Vec::new());
        Self { chunks, bytes, checksum: Digest::new(CrcAlgorithm::Crc64Nvme), bases, repeated_bytes: 0 }
    }
}

/// A sealed segment.
pub struct Sealed {
    pub bytes: Vec<u8>,
    /// Of the bytes.
    pub hash: Hash,
    /// Whether it needs its bases.
    pub is_delta: bool,
    /// How many bytes the chunks that are new would have taken without bases, at least, less what
    /// the segment takes.
    pub saved_bytes: i64,
}

impl SegmentBuilder {
    /// Starts a segment of about so many bytes: pages that are not touched cost nothing, and moving what grows
    /// does.
    pub fn with_room(bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes + bytes / 8), ..Self::default() }
    }

    /// Appends a chunk and returns its number.
    pub fn push(&mut self, id: ChunkId, chunk: &[u8]) -> u32 {
        let number = self.chunks.len() as u32;
        self.chunks.push(id, chunk.len() as u32);
        self.checksum.update(chunk);
        self.bytes.extend_from_slice(chunk);
        number
    }
}

/// What is needed to seal a tenant's segments.
#[derive(Clone)]
pub struct Sealer {
    pub suite: Suite,
    pub owner: ScopeId,
    pub name: KeyName,
    pub key: Key,
}

impl Sealer {
    /// Compresses and seals a segment: against `prefix`, the bytes of its bases, if that pays, else
    /// without. An empty prefix means that there are no bases.
    pub fn seal(&self, segment: SegmentName, built: &SegmentBuilder, prefix: &[u8], nonce: [u8; 24]) -> Sealed {
        let delta = if prefix.is_empty() { None } else { compress_delta(&built.bytes, prefix) };
        let is_sure = delta.as_ref().is_some_and(|delta| delta.len() * 100 <= built.bytes.len() * DELTA_PERCENT_SURE);
        let alone = if is_sure { None } else { compress(&built.bytes) };
        let without = match &alone {
            Some(alone) => alone.len(),
            None if is_sure => at_least_without(&built.bytes),
            None => built.bytes.len(),
        };
        let delta = delta.filter(|delta| is_sure || delta.len() * 100 <= without * DELTA_PERCENT_MAX);
        let is_delta = delta.is_some();
        let compressed = delta.or(alone);
        let codec = if compressed.is_some() { Codec::Zstd } else { Codec::Plain };
        let payload = compressed.as_deref().unwrap_or(&built.bytes);
        let head = SegmentHead {
            codec: codec as u8,
            chunks: built.chunks.clone(),
            bases: if is_delta { built.bases.clone() } else { Vec::new() },
            unknown: Default::default(),
        };
        let plain = plain_form(&head, payload);
        let fresh = built.bytes.len() - built.repeated_bytes;
        let saved_bytes = (without * fresh / built.bytes.len().max(1)) as i64 - payload.len() as i64;
        let bytes = seal(self.suite, (self.name, &self.key), nonce, self.binding(segment), &plain);
        Sealed { hash: hash(&bytes), bytes, is_delta, saved_bytes }
    }

    fn binding(&self, segment: SegmentName) -> Binding {
        Binding { kind: Kind::Segment(segment), owner: self.owner }
    }
}

fn plain_form(head: &SegmentHead, payload: &[u8]) -> Vec<u8> {
    let head = encode(head);
    let mut plain = Vec::with_capacity(4 + head.len() + payload.len());
    plain.extend_from_slice(&(head.len() as u32).to_le_bytes());
    plain.extend_from_slice(&head);
    plain.extend_from_slice(payload);
    plain
}

/// Pieces of data from its beginning, middle and end.
fn samples(bytes: &[u8]) -> [&[u8]; 3] {
    const SAMPLE: usize = 16 << 10;
    let length = bytes.len().min(SAMPLE);
    [0, (bytes.len() - length) / 2, bytes.len() - length].map(|at| &bytes[at..at + length])
}

/// Compresses at the fastest level, and returns how many bytes that takes.
fn probe(sample: &[u8]) -> usize {
    zstd::bulk::compress(sample, 1).map_or(sample.len(), |compressed| compressed.len())
}

/// Estimates, rather too low, what data takes when it is compressed alone.
fn at_least_without(bytes: &[u8]) -> usize {
    let samples = samples(bytes);
    let sum = |of: fn(&[u8]) -> usize| samples.iter().map(|sample| of(sample)).sum::<usize>();
    // Small samples compress worse than all of it together does.
    bytes.len() * sum(probe) / sum(<[u8]>::len).max(1) * 4 / 5
}

/// Compresses, unless a probe or the result says that it does not pay.
fn compress(bytes: &[u8]) -> Option<Vec<u8>> {
    // Samples tell incompressible data cheaply.
    if bytes.len() > 128 << 10 && !samples(bytes).iter().any(|sample| probe(sample) * 100 < sample.len() * 98) {
        return None;
    }
    zstd::bulk::compress(bytes, LEVEL).ok().filter(|compressed| compressed.len() < bytes.len())
}

/// How a zstd dictionary that is more than raw content begins (RFC 8878 section 5).
const MAGIC_DICTIONARY: u32 = 0xec30_a437;

/// Of how many places, as a logarithm, one is looked at for far matches. Finer searches cost a tenth of a
/// backup's time: the middle one pays where the tables cannot hold every place, ...
const COARSE: u32 = 7;
const MIDDLE: u32 = 5;
/// ... and the finest where every row has changed a little, so that the delta is more than this part of its
/// plain bytes.
const FINE: u32 = 4;
const FINE_FROM: usize = 8;

/// Compresses with `prefix` as what came before (Shilane et al., FAST 2012: stream-informed deltas).
/// The tables are large enough to find matches anywhere in the prefix.
fn compress_delta(bytes: &[u8], prefix: &[u8]) -> Option<Vec<u8>> {
    let window_log = (prefix.len() + bytes.len()).next_power_of_two().trailing_zeros().clamp(17, 24);
    if window_log > 23 {
        return compress_with(bytes, prefix, window_log, MIDDLE);
    }
    let coarse = compress_with(bytes, prefix, window_log, COARSE)?;
    if window_log < 23 || coarse.len() * FINE_FROM <= bytes.len() {
        return Some(coarse);
    }
    let fine = compress_with(bytes, prefix, window_log, FINE);
    fine.filter(|fine| fine.len() < coarse.len()).or(Some(coarse))
}

/// Looks for far matches at one place in `1 << rate_log`.
fn compress_with(bytes: &[u8], prefix: &[u8], window_log: u32, rate_log: u32) -> Option<Vec<u8>> {
    let mut context = CCtx::create();
    let parameters = [
        CParameter::CompressionLevel(LEVEL),
        CParameter::WindowLog(window_log),
        CParameter::HashLog(window_log.min(20)),
        CParameter::ChainLog(window_log.min(20)),
        // Changed rows and lines are short: matches of 32 bytes are worth going far for.
        CParameter::EnableLongDistanceMatching(true),
        CParameter::LdmMinMatch(32),
        CParameter::LdmHashRateLog(rate_log),
    ];
    for parameter in parameters {
        context.set_parameter(parameter).ok()?;
    }
    context.ref_prefix(prefix).ok()?;
    let mut out = Vec::with_capacity(compress_bound(bytes.len()));
    context.compress2(&mut out, bytes).ok()?;
    Some(out)
}

/// A segment, decompressed. A chunk is handed on after `check`; what only serves to decompress
/// another segment is checked with that one.
#[derive(Debug)]
pub struct OpenSegment {
    pub chunks: ChunkList,
    /// The key that it was sealed with.
    pub key: KeyName,
    bytes: Vec<u8>,
    starts: Vec<u32>,
}

impl OpenSegment {
    /// Recomputes the id of a chunk.
    pub fn check(&self, number: u32, hasher: &ChunkHasher) -> Result<(), OpenError> {
        match self.chunks.id(number as usize) {
            None => Err(malformed("segment", "no such chunk").into()),
            id if self.slice(number, 1).map(|bytes| hasher.id(bytes)) == id => Ok(()),
            _ => Err(OpenError::WrongChunk(number as usize)),
        }
    }

    /// Recomputes the ids of all chunks.
    pub fn check_all(&self, hasher: &ChunkHasher) -> Result<(), OpenError> {
        (0..self.chunks.len() as u32).try_for_each(|number| self.check(number, hasher))
    }

    /// Returns the bytes of `count` chunks from `first` on.
    pub fn slice(&self, first: u32, count: u32) -> Option<&[u8]> {
        let end = first.checked_add(count)? as usize;
        self.bytes.get(*self.starts.get(first as usize)? as usize..*self.starts.get(end)? as usize)
    }
    /// Returns how many plain bytes the segment holds.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

/// A segment after decryption: its head was read, its bytes still need what `bases` names.
pub struct SealedOff {
    pub head: SegmentHead,
    /// The key that it was sealed with.
    pub key: KeyName,
    payload: Vec<u8>,
    plain_bytes: usize,
}

/// Decrypts a segment and reads its head.
pub fn unseal(
    sealed: &[u8],
    owner: ScopeId,
    segment: SegmentName,
    key_of: impl FnOnce(KeyName) -> Option<Key>,
) -> Result<SealedOff, OpenError> {
    let binding = Binding { kind: Kind::Segment(segment), owner };
    let mut plain = open(sealed, binding, key_of)?;
    let length = plain.get(..4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]) as usize);
    let head_bytes = length.and_then(|length| plain.get(4..4usize.checked_add(length)?));
    let head_bytes = head_bytes.ok_or_else(|| malformed("segment", "no head"))?;
    let head: SegmentHead = decode(head_bytes)?;
    let plain_bytes = head.chunks.plain_bytes()?;
    if head.bases.len() > BASE_RUNS_MAX {
        return Err(malformed("segment", "too many base runs").into());
    }
    let payload = plain.split_off(4 + head_bytes.len());
    let (header, _) = Header::read(sealed)?;
    Ok(SealedOff { head, key: header.key, payload, plain_bytes })
}

impl SealedOff {
    /// Decompresses with the bases' bytes as prefix. No chunk's id was recomputed yet.
    pub fn finish(self, prefix: &[u8]) -> Result<OpenSegment, OpenError> {
        if prefix.len() > PREFIX_BYTES_MAX || (prefix.is_empty() != self.head.bases.is_empty()) {
            return Err(malformed("segment", "bases do not match the head").into());
        }
        let bytes = match self.head.codec {
            0 if self.head.bases.is_empty() => self.payload,
            1 => decompress(&self.payload, prefix, self.plain_bytes)?,
            other => return Err(malformed("segment", format!("codec {other} is not known to this version")).into()),
        };
        if bytes.len() != self.plain_bytes {
            return Err(malformed("segment", "not as long as its chunks").into());
        }
        let mut starts = Vec::with_capacity(self.head.chunks.len() + 1);
        let mut at = 0;
        starts.push(at);
        for (_, length) in self.head.chunks.iter() {
            at += length;
            starts.push(at);
        }
        Ok(OpenSegment { chunks: self.head.chunks, key: self.key, bytes, starts })
    }
}

fn decompress(payload: &[u8], prefix: &[u8], plain_bytes: usize) -> Result<Vec<u8>, OpenError> {
    let failed = |error: std::io::Error| OpenError::Compression(error.to_string());
    if prefix.is_empty() {
        return zstd::bulk::decompress(payload, plain_bytes).map_err(failed);
    }
    let mut bytes = Vec::with_capacity(plain_bytes);
    // In one go, without a window of its own. A dictionary with the magic number is no raw content.
    if !prefix.starts_with(&MAGIC_DICTIONARY.to_le_bytes()) {
        let done = DCtx::create().decompress_using_dict(&mut bytes, payload, prefix);
        return done
            .map(|_| bytes)
            .map_err(|code| OpenError::Compression(zstd::zstd_safe::get_error_name(code).into()));
    }
    let decoder = zstd::stream::read::Decoder::with_ref_prefix(payload, prefix).map_err(failed)?;
    // One byte more than expected, so that a longer stream is seen and not silently cut.
    std::io::Read::read_to_end(&mut std::io::Read::take(decoder, plain_bytes as u64 + 1), &mut bytes)
        .map_err(failed)?;
    Ok(bytes)
}

/// Opens a sealed segment as a reader would, and compares it with what the chunks were when their
/// ids were computed: memory that flips bits and compressors with bugs are found before anything is
/// uploaded. A checksum of 64 bits takes a tenth of the time that the ids would.
pub fn verify(
    sealed: &[u8],
    sealer: &Sealer,
    segment: SegmentName,
    (built, prefix): (&SegmentBuilder, &[u8]),
) -> Result<(), OpenError> {
    let unsealed = unseal(sealed, sealer.owner, segment, |_| Some(sealer.key.clone()))?;
    let prefix = if unsealed.head.bases.is_empty() { &[] } else { prefix };
    let opened = unsealed.finish(prefix)?;
    let mut checksum = Digest::new(CrcAlgorithm::Crc64Nvme);
    checksum.update(&opened.bytes);
    match opened.chunks == built.chunks && checksum.finalize() == built.checksum.finalize() {
        true => Ok(()),
        false => Err(OpenError::NotAuthentic),
    }
}
