//! Sealed topic keys, opened and made again by libsodium itself.

#[cfg(test)]
mod differential;
#[cfg(test)]
mod secrets;
