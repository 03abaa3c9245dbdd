//! What tests of dlm, and of backends that others write for it, need.
//!
//! [`http_server`] is a server on loopback whose every answer is scripted, byte by byte if need be: it lies about
//! ranges, cuts, stalls, floods and counts what it served. [`fixtures`] makes bytes that are the same in every run.
//! [`sim`] runs whole jobs in virtual time, from sources that cost only time. [`conformance`] has the rules that backends,
//! sinks and journals keep, and [`chaos`] makes every call fail once.

pub mod chaos;
pub mod conformance;
pub mod fixtures;
pub mod http_server;
pub mod sim;
