//! Where redirects led, so that the next range of the same locator goes there at once.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use dlm_core::Locator;

use crate::client::Hop;

/// Most locators that are remembered.
const MAX: usize = 1024;
/// Longer addresses than this, in bytes, are not remembered.
const MAX_LEN: usize = 8 * 1024;

/// A bounded memory; the oldest is forgotten first.
#[derive(Debug, Default)]
pub(crate) struct Finals(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    map: HashMap<Locator, Hop>,
    order: VecDeque<Locator>,
}

impl Finals {
    /// Where `locator` led.
    pub(crate) fn get(&self, locator: &Locator) -> Option<Hop> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).map.get(locator).cloned()
    }

    /// Remembers where `locator` led, if it led anywhere else.
    pub(crate) fn put(&self, locator: &Locator, hop: &Hop) {
        if hop.url == *locator {
            return self.forget(locator);
        }
        if locator.reveal().as_str().len() + hop.url.reveal().as_str().len() > MAX_LEN {
            return;
        }
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.map.insert(locator.clone(), hop.clone()).is_none() {
            inner.order.push_back(locator.clone());
            if inner.order.len() > MAX
                && let Some(oldest) = inner.order.pop_front()
            {
                inner.map.remove(&oldest);
            }
        }
    }

    /// Starts over from `locator` next time.
    pub(crate) fn forget(&self, locator: &Locator) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.map.remove(locator).is_some() {
            inner.order.retain(|l| l != locator);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn l(s: &str) -> Locator {
        s.parse().unwrap()
    }

    #[test]
    fn remembers_within_bounds() {
        let finals = Finals::default();
        let to = Hop { url: l("http://b/"), home: false };
        finals.put(&l("http://b/"), &to);
        assert!(finals.get(&l("http://b/")).is_none());
        for i in 0..2 * MAX {
            finals.put(&l(&format!("http://a/{i}")), &to);
        }
        assert!(finals.get(&l("http://a/0")).is_none());
        assert_eq!(finals.get(&l(&format!("http://a/{MAX}"))).unwrap().url, to.url);
        finals.forget(&l(&format!("http://a/{MAX}")));
        assert!(finals.get(&l(&format!("http://a/{MAX}"))).is_none());
        let inner = finals.0.lock().unwrap();
        assert_eq!(inner.map.len(), inner.order.len());
        drop(inner);
        finals.put(&l(&format!("http://a/{}", "x".repeat(MAX_LEN))), &to);
        assert!(finals.get(&l(&format!("http://a/{}", "x".repeat(MAX_LEN)))).is_none());
    }
}
