//! What all connections of one server share.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use super::Handler;
use super::bucket::Bucket;
use super::request::Request;

/// Most requests the log keeps.
const LOG: usize = 20_000;

pub(super) struct Shared {
    pub(super) handler: Box<dyn Handler>,
    pub(super) bases: Arc<[String]>,
    pub(super) bucket: Option<Bucket>,
    pub(super) state: Mutex<State>,
    served: AtomicU64,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) log: Vec<Request>,
    pub(super) requests: u64,
    pub(super) gets: u64,
    pub(super) connections: u64,
    pub(super) open: BTreeSet<u64>,
    pub(super) most_open: usize,
    busy: u64,
}

impl Shared {
    pub(super) fn new(handler: Box<dyn Handler>, bases: Arc<[String]>, bucket: Option<Bucket>) -> Self {
        Self { handler, bases, bucket, state: Mutex::default(), served: AtomicU64::new(0) }
    }

    pub(super) fn served(&self, bytes: usize) {
        self.served.fetch_add(bytes as u64, Relaxed);
    }
    pub(super) fn served_so_far(&self) -> u64 {
        self.served.load(Relaxed)
    }

    /// Reads or changes the counts.
    pub(super) fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Gives the request its place in the run and writes it down. It counts as busy until the guard is dropped.
    pub(super) fn admit(&self, request: &mut Request) -> Busy<'_> {
        request.served = self.served_so_far();
        request.bases = self.bases.clone();
        self.with(|s| {
            (request.nth, request.nth_get, request.busy) = (s.requests, s.gets, s.busy);
            s.requests += 1;
            s.gets += u64::from(request.is_get());
            s.busy += 1;
            if s.log.len() < LOG {
                s.log.push(request.clone());
            }
        });
        Busy(self)
    }

    /// Counts a connection as open until the guard is dropped.
    pub(super) fn opened(&self) -> Open<'_> {
        let id = self.with(|s| {
            let id = s.connections;
            s.connections += 1;
            s.open.insert(id);
            s.most_open = s.most_open.max(s.open.len());
            id
        });
        Open { shared: self, id }
    }
}

pub(super) struct Busy<'a>(&'a Shared);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.with(|s| s.busy -= 1);
    }
}

pub(super) struct Open<'a> {
    shared: &'a Shared,
    pub(super) id: u64,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.shared.with(|s| s.open.remove(&self.id));
    }
}
