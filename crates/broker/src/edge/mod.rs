//! Bytes to requests and answers to bytes. Nothing is decided here.

pub(crate) mod address;
pub(crate) mod bucket;
pub(crate) mod greet;
pub(crate) mod guests;
pub(crate) mod health;
pub(crate) mod hook;
pub(crate) mod impatient;
pub(crate) mod limit;
pub(crate) mod line;
pub(crate) mod mail;
pub(crate) mod rest;
pub(crate) mod sends;
pub(crate) mod server;
pub(crate) mod upgrade;
pub(crate) mod ws;
