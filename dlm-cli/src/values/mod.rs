//! Values on the command line, each read by one strict parser.

mod bearer;
mod header;
mod rate;
mod seconds;
mod user;

pub(crate) use bearer::{Token, token};
pub(crate) use header::{Header, header};
pub(crate) use rate::rate;
pub(crate) use seconds::seconds;
pub(crate) use user::{Credentials, credentials, find_password};
