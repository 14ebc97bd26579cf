//! A catalogue and its path index, as they grow.

use crate::{
    error::Result,
    format::{
        catalogue::{Entry, INDEX_STRIDE, IndexPoint, framed},
        names::PackKind,
        recipe::Stream,
    },
    repository::{Reference, Session, StreamBuilder, WholeStream},
};

pub(super) struct CatalogueBuilder {
    catalogue: StreamBuilder,
    path_index: StreamBuilder,
    next_index_point: u64,
}

impl CatalogueBuilder {
    /// `old` is what it is compared with.
    pub(super) fn new(session: &mut Session<'_>, old: Option<Reference>) -> Self {
        let catalogue = StreamBuilder::new(session, PackKind::Meta).with_reference(old);
        Self { catalogue, path_index: StreamBuilder::new(session, PackKind::Meta), next_index_point: 0 }
    }

    /// Appends an entry, and what it has as content: nothing but a whole stream. Entries come sorted.
    pub(super) fn add(&mut self, session: &mut Session<'_>, entry: Entry, content: Option<WholeStream>) -> Result<()> {
        let entry = Entry { content: content.map(WholeStream::into_record), ..entry };
        let offset = self.catalogue.length();
        if offset >= self.next_index_point {
            let point = IndexPoint { path: entry.path.clone(), offset, unknown: Default::default() };
            self.path_index.push(session, &framed(&point))?;
            self.next_index_point = offset + INDEX_STRIDE;
        }
        self.catalogue.push(session, &framed(&entry))
    }

    /// Returns the catalogue and its path index.
    pub(super) fn finish(self, session: &mut Session<'_>) -> Result<(Stream, Stream)> {
        Ok((self.catalogue.finish(session)?, self.path_index.finish(session)?))
    }
}
